"""The torch side of the layers, a family a file; imported only when a network is built."""
