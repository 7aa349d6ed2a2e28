"""What changed since an earlier run of this class of machines."""
