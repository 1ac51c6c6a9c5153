"""RabbitMQ: quorum queues per (source, lane), confirms, retries by TTL, dead letters with reasons."""

from astrid.broker.rabbitmq.broker import RabbitBroker, open_rabbitmq
from astrid.broker.rabbitmq.letters import DeadLetters, Letter, open_dead_letters

__all__ = ["DeadLetters", "Letter", "RabbitBroker", "open_dead_letters", "open_rabbitmq"]
