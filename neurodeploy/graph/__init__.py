"""The typed intermediate graph: nodes with explicit semantics, shape inference, importers and exporters."""
