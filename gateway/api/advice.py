"""A body with refused fields, answered with what the model would take."""

from contracts.errors import Problem
from contracts.resolve import advice
from gateway.runtime import Gateway
from gateway.services.errors import ServiceError


async def with_advice(problem: Problem, gateway: Gateway) -> Problem:
    """The refused fields of a body, each with what the model takes where that is known."""
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
