"""Laws of the stack's description: addresses, the session's token, what an unusable setting is called."""

import subprocess
import sys

import pytest

from gateway.cli.client.show import waiting_for
from gateway.cli.serving.stack import (
    StackError,
    StackSettings,
    read_settings,
    served_names,
    service_specs,
    stack_environment,
)


def test_three_services_started_together_share_a_fresh_token_and_know_each_others_address() -> None:
    specs = service_specs(StackSettings(vl_port=18101, video_port=18102))
    first, second = (stack_environment(specs, {}) for _ in range(2))
    assert len(first["STILLMOTION_INTERNAL_TOKEN"]) >= 32
    assert first["STILLMOTION_INTERNAL_TOKEN"] != second["STILLMOTION_INTERNAL_TOKEN"]
    assert first["GATEWAY_VL_URL"] == "http://127.0.0.1:18101"
    assert first["GATEWAY_VIDEO_URL"] == "http://127.0.0.1:18102"


def test_on_ray_the_gateway_asks_the_directory_and_shares_the_token_with_it() -> None:
    settings = StackSettings(ray_port=18110, studio_port=0)
    specs = service_specs(settings, served_names(settings, on_ray=True))
    assert [spec.name for spec in specs] == ["gateway", "ray"]
    given = stack_environment(specs, {})
    assert given["GATEWAY_VIDEO_URL"] == "ray://127.0.0.1:18110/video"
    assert given["GATEWAY_VL_URL"] == "ray://127.0.0.1:18110/vl"
    assert given["STILLMOTION_INTERNAL_TOKEN"]


def test_what_the_user_set_wins_and_an_empty_value_counts_as_unset() -> None:
    specs = service_specs(StackSettings())
    given = stack_environment(specs, {"STILLMOTION_INTERNAL_TOKEN": "mine", "GATEWAY_VL_URL": "", "OTHER": ""})
    assert given["STILLMOTION_INTERNAL_TOKEN"] == "mine"
    assert given["GATEWAY_VL_URL"] == "http://127.0.0.1:8001"
    assert given["OTHER"] == ""


def test_a_service_that_runs_alone_gets_no_token_that_its_partners_could_not_know() -> None:
    specs = service_specs(StackSettings(), ("vl",))
    assert [spec.name for spec in specs] == ["vl"]
    assert "STILLMOTION_INTERNAL_TOKEN" not in stack_environment(specs, {})


@pytest.mark.parametrize(("host", "url"), [
    ("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000"), ("::1", "http://[::1]:8000"),
    ("192.0.2.7", "http://192.0.2.7:8000"), ("localhost", "http://localhost:8000"),
])
def test_a_service_that_listens_everywhere_is_called_on_loopback(host: str, url: str) -> None:
    assert service_specs(StackSettings(gateway_host=host), ("gateway",))[0].url == url


@pytest.mark.parametrize("value", ["abc", "0", "70000"])
def test_an_unusable_port_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("VIDEO_PORT", value)
    with pytest.raises(StackError, match=f"VIDEO_PORT={value} is not usable"):
        read_settings()


def test_the_gateway_does_not_repeat_what_the_other_services_say() -> None:
    lacks = {"gateway": ["video_service: is loading"], "vl": [], "video": ["is loading"]}
    assert waiting_for(lacks) == "gateway (for the others); video (is loading)"
    assert waiting_for({"gateway": ["the disk is full"], "vl": [], "video": []}) == "gateway (the disk is full)"
    assert waiting_for({"gateway": [], "vl": []}) == ""


def test_the_command_line_imports_no_model_library() -> None:
    program = "import sys, gateway.cli; print({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"
