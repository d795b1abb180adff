"""Host names, the address guard, dialling and bounded HTTP."""
