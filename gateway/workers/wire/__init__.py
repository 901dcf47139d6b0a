"""What lies between the parent and a worker: messages, their codec, and how both travel."""
