// A real PLC directory and COUNT real PDS hosts on loopback, for tests/e2e.
//
//   node hosts.cjs COUNT DATA_DIR
//
// Prints one JSON line once all of them listen: {"plc": URL, "hosts": ["localhost:PORT", ...], "adminPassword": ...}.
// Then answers each JSON line on stdin with one: {"did", "host", "credentials"} signs a PLC operation with the
// rotation key of that host, as an operator helping an account to move away would.
// Ends at SIGTERM or at the end of stdin.
'use strict'

const { randomBytes } = require('node:crypto')
const { mkdirSync } = require('node:fs')
const net = require('node:net')
const path = require('node:path')
const readline = require('node:readline')
const { PlcServer, Database } = require('@did-plc/server')
const { PDS, envToCfg, envToSecrets } = require('@atproto/pds')

const LOOPBACK = '127.0.0.1'
const hex = (bytes) => randomBytes(bytes).toString('hex')

// Both servers call listen(port) and offer no way to name an address; without this they listen on all of them.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, typeof port === 'number' ? { port, host: LOOPBACK } : port, ...rest)
}

// A PDS has to know its own port before it listens.
const freePort = () =>
  new Promise((resolve, reject) => {
    const probe = net.createServer().once('error', reject)
    probe.listen(0, () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })

const startPds = async (plc, directory, adminPassword) => {
  const env = {
    devMode: true,
    port: await freePort(),
    dataDirectory: directory,
    blobstoreDiskLocation: path.join(directory, 'blobs'),
    adminPassword,
    jwtSecret: hex(32),
    dpopSecret: hex(32),
    plcRotationKeyK256PrivateKeyHex: hex(32),
    serviceHandleDomains: ['.test'],
    didPlcUrl: plc,
    inviteRequired: false,
    disableSsrfProtection: true,
    crawlers: [],
  }
  mkdirSync(directory, { recursive: true })
  const pds = await PDS.create(envToCfg(env), envToSecrets(env))
  await pds.start()
  return pds
}

const main = async () => {
  const [count, directory] = [Number(process.argv[2]), process.argv[3]]
  const plcPort = await freePort()
  const plcUrl = `http://localhost:${plcPort}`
  const plc = PlcServer.create({ db: Database.mock(), port: plcPort })
  await plc.start()
  const adminPassword = hex(8)
  const hosts = []
  for (let i = 0; i < count; i++) hosts.push(await startPds(plcUrl, path.join(directory, `pds${i}`), adminPassword))

  const names = hosts.map((pds) => `localhost:${pds.ctx.cfg.service.port}`)
  console.log(JSON.stringify({ plc: plcUrl, hosts: names, adminPassword }))

  const stop = async () => {
    const lastResort = setTimeout(() => process.exit(1), 5000)
    lastResort.unref()
    await Promise.all([...hosts, plc].map((server) => server.destroy()))
    process.exit(0)
  }
  process.once('SIGTERM', stop)
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { did, host, credentials } = JSON.parse(line)
    const { plcClient, plcRotationKey } = hosts[names.indexOf(host)].ctx
    await plcClient.updateData(did, plcRotationKey, (last) => ({ ...last, ...credentials }))
    console.log(JSON.stringify({ did }))
  }
  await stop()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
