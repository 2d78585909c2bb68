"""Why a request about a user is refused."""

from picopay.kernel.errors import Refused


class UserNotFound(Refused):
    code = "user-not-found"

    def __init__(self, user_id: int) -> None:
        super().__init__(f"there is no user {user_id}", user_id=user_id)
