"""A worker process: a gateway whose connections and loads come from a parent."""
