"""The model services as Ray Serve replicas: Ray places them on nodes and devices, starts them again, and grows them
with the work. Each is the same process as anywhere else, which the gateway calls directly.
"""
