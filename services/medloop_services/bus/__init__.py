"""The bus: one way to build a service and to run it on Kafka."""
