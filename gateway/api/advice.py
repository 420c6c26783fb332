"""A body with refused fields, answered with what the model would take."""

from pydantic import ValidationError

from contracts.errors import Problem
from contracts.resolve import advice
from gateway.runtime import Gateway
from gateway.services.clients import ServiceError
from web.problems import validation_problem


async def refused_fields(error: ValidationError, gateway: Gateway) -> Problem:
    """The refused fields, each with what the model takes where that is known."""
    problem = validation_problem(error.errors(include_url=False, include_input=False))
    try:
        model = (await gateway.catalog.video_models())[0]
    except ServiceError:
        model = None
    fields = [
        field.model_copy(update={
            "field": field.field if field.field == "body" else f"body.{field.field}",
            "message": f"{field.message}. {advice(field.field, model) if model else ''}".rstrip(" ."),
        })
        for field in problem.errors or []
    ]
    detail = "; ".join(f"{field.field}: {field.message}" for field in fields[:5])
    return problem.model_copy(update={"errors": fields, "detail": detail})
