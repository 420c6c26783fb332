"""How a route reaches the open parts of the process."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.runtime import Gateway


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


OpenGateway = Annotated[Gateway, Depends(_gateway)]
