"""Programs onto kits: the plan, the lock, the run. No vendor's library is imported here."""
