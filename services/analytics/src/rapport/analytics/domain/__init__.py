"""What analytics decides: pure models and functions that know nothing of bus, store or HTTP."""
