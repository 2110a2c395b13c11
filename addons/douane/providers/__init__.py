"""What each provider's wire format says: one family a file, one table of hosts."""
