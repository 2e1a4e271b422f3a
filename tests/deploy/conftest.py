from __future__ import annotations

import pytest
from deployed import Python, make_python


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    return make_python(tmp_path_factory.mktemp("deployed"))
