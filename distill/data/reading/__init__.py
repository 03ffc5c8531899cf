"""Read what people hand in: tables, label codes, patient ids, listed paths, folders, pictures and DICOM files."""
