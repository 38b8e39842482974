"""One image: decode a PNG, JPEG, TIFF or DICOM file to 8-bit gray, and resize it."""
