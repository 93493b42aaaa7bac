"""What the verbs do, as functions: keyword-only arguments, typed results, nothing printed."""
