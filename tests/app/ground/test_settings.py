from pathlib import Path

import pytest

from app.ground.errors import AppError
from app.ground.settings import MAX_SOCKET_PATH_BYTES, Settings


def test_environment_is_read(tmp_path):
    settings = Settings.from_environment(
        {"UNETOPS_HOME": str(tmp_path), "UNETOPS_REQUIRE_AUTH": "1", "UNETOPS_SECRET": "s",
         "UNETOPS_ALLOW_OPEN": "yes",
         "UNETOPS_MAX_IMAGE_BYTES": "7"}
    )  # fmt: skip
    assert settings == Settings(
        home=tmp_path.resolve(), require_auth=True, allow_open=True, secret="s", max_image_bytes=7
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("UNETOPS_REQUIRE_AUTH", "maybe"), ("UNETOPS_MAX_UPLOAD_BYTES", "8GB"),
     ("UNETOPS_MAX_IMAGE_PIXELS", "0")],
)  # fmt: skip
def test_invalid_values_are_reported_by_name(name, value):
    with pytest.raises(AppError, match=name):
        Settings.from_environment({name: value})


def test_the_socket_path_never_exceeds_the_kernel_limit(tmp_path):
    long = Settings(home=tmp_path / ("x" * 150))
    assert len(str(long.predictor_socket)) <= MAX_SOCKET_PATH_BYTES
    assert long.predictor_socket == Settings(home=long.home).predictor_socket
    assert Settings(home=Path("/srv")).predictor_socket == Path("/srv/run/predictor.sock")
