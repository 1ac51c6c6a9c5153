"""The public API and the web page over one store: JSON under ``/v1``, pages under ``/``, no state of its own."""
