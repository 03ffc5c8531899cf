"""Files inside zip, tar and parquet files, read in place, and the data sets of the Hugging Face hub."""
