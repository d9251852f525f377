"""What every test of the tree shares."""

import pytest

pytest.register_assert_rewrite("rapport.common.testing")
