"""What happened and how well: the trace of a stream, the accuracy of models, the plots and the report."""
