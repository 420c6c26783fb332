"""`python -m gateway`: the public HTTP service."""

from web.worker.imports import lasting_imports

if __name__ == "__main__":
    with lasting_imports():
        from gateway.start import main
    main()
