"""Which videos there are: lists made from a download, an index of what each holds, and a check."""
