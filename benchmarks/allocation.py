"""Settings of glibc's malloc, as environment variables that it reads when a process starts."""

# What `python -m jaxplm.main` sets for itself (jaxplm/devices/huge_pages.py), for workers that are not that command.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# What a PyTorch user may set by hand: huge pages, and freed memory is kept and used again.
TUNED_MALLOC = HUGE_PAGES | {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30), "MALLOC_TOP_PAD_": str(512 * 2**20)}
