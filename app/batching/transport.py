"""The transport that Faust is given: our consumer and producer."""

from faust.transport.drivers.aiokafka import Transport

from app.batching.consumer import BatchConsumer
from app.batching.producer import BatchProducer


class BatchTransport(Transport):
    """Faust's aiokafka transport with whole fetches."""

    Consumer = BatchConsumer
    Producer = BatchProducer
