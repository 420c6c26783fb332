"""`python -m vl_service`: serve on VL_HOST:VL_PORT."""

from web.worker.imports import lasting_imports


def main() -> None:
    """Read the environment and serve until told to stop."""
    with lasting_imports():
        import uvicorn

        from vl_service.http.app import create_app
        from vl_service.settings import Settings
        from web.logs import configure_logging
        from web.telemetry import configure_tracing
    settings = Settings()
    configure_logging("vl_service", settings.log_level)
    configure_tracing("vl_service")
    uvicorn.run(
        create_app(settings), host=settings.host, port=settings.port, log_config=None, access_log=False,
        timeout_graceful_shutdown=10, loop="asyncio", http="h11",  # whatever else is installed
    )


if __name__ == "__main__":
    main()
