"""What a webhook's route asks of its sender."""

from collections.abc import Sequence

from starlette.requests import Request

from picopay.access.errors import SignatureInvalid
from picopay.infra import metrics
from picopay.infra.logs import log
from picopay.kernel import signing


def require_signed(
    request: Request, body: bytes, scheme: signing.Scheme, secrets: Sequence[str]
) -> None:
    """One of the secrets has signed the raw body. Raises `SignatureInvalid`.

    Which reason it had is for logs and metrics: who forges learns nothing.
    """
    now = request.app.state.now()
    verdict = signing.verify(scheme, body, request.scope["headers"], secrets, now)
    if verdict.reason is not signing.Reason.VALID:
        metrics.signatures_rejected.labels(verdict.reason).inc()
        log.warning("webhook.signature_rejected", reason=verdict.reason, path=request.url.path)
        raise SignatureInvalid
