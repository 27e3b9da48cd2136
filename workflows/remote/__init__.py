"""The same tasks on another machine, reached over SSH through Fabric."""
