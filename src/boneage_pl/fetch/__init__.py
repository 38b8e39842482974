"""Download and extract the archives of the RSNA 2017 challenge."""
