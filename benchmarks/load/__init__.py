"""Load on a service as it is deployed: by ghz and by our own client, straight and through Envoy. `make load`."""
