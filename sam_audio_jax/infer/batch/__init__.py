"""Many recordings from a manifest: read it, measure lengths, separate, keep a ledger."""
