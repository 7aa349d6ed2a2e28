"""Problems: mixtures, streams, packed batches, graphs, files."""
