// A foreign consumer: @atproto/sync's Firehose with full authentication (signatures, proofs, handles).
//
//   node consumer.cjs SERVICE PLC_URL PDS_URL...
//
// Prints one JSON line per event as the library hands it out, and {"error"} for everything it refuses.
// Ends at SIGTERM or at the end of stdin.
'use strict'

const { Firehose, MemoryRunner } = require('@atproto/sync')
const { IdResolver } = require('@atproto/identity')

const RECONNECT_MS = 200
// Generous: the machine may be busy, and a resolution given up would look like a refused event.
const RESOLVE_MS = 30_000
const [service, plcUrl, ...pdsUrls] = process.argv.slice(2)
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')

// The library's own fetch refuses http: (its guard against private addresses).
const idResolver = new IdResolver({ plcUrl, fetch: globalThis.fetch, timeout: RESOLVE_MS })
// Handles under .test have no DNS and no https; their hosts know them.
idResolver.handle.resolve = async (handle) => {
  for (const url of pdsUrls) {
    const answer = await fetch(`${url}/xrpc/com.atproto.identity.resolveHandle?handle=${handle}`)
    if (answer.ok) return (await answer.json()).did
  }
  return undefined
}

const describe = (event) => {
  const { seq, did, event: kind } = event
  switch (kind) {
    case 'account':
      return { seq, did, kind, active: event.active, status: event.status ?? null }
    case 'identity':
      return { seq, did, kind }
    case 'sync':
      return { seq, did, kind, rev: event.rev, cid: event.cid.toString() }
    default: {
      const path = `${event.collection}/${event.rkey}`
      return { seq, did, kind, rev: event.rev, path, cid: event.cid?.toString() ?? null }
    }
  }
}

// Its getCursor option is never called in 0.1.40 (the function itself goes into the URL); a runner's cursor is.
const runner = new MemoryRunner({ startCursor: 0 })
const firehose = new Firehose({
  service,
  idResolver,
  runner,
  maxReconnectSeconds: 1,
  subscriptionReconnectDelay: RECONNECT_MS,
  handleEvent: (event) => print(describe(event)),
  // Never called for a lost connection: those it repairs by itself.
  onError: (error) => print({ error: `${error.message}: ${error.cause}` }),
})

process.once('SIGTERM', () => process.exit(0))
process.stdin.on('end', () => process.exit(0)).resume()

// start() returns for good when the server closes properly, whatever the code; users of this version loop.
const main = async () => {
  for (;;) {
    await firehose.start()
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS))
  }
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
