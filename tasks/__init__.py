"""One phase a file, a plain function each; the flow makes Prefect tasks of them, or calls them as they are."""
