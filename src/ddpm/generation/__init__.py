"""Generation of many images: sample numbers as a data set, resumable image stores, records of their content."""
