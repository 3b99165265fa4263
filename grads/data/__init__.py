"""Any supported file, folder or hub data set -> validated samples, and the rows refused."""
