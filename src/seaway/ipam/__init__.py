"""Handing out subnets and addresses.  Allocation is pure; committing is the store's."""
