"""The wire types of the REST interface: requests, answers and the one shape of an error."""

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    EncodedBytes,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)

from gateway.api.rest.base64_image import Base64
from gateway.api.rest.image_bodies import Sent, images_of


class RunRequest(BaseModel):
    """
    An image to classify, in JSON; or what another body brings in its place (`image_bodies.py`).
    `several` is None for one image.
    """

    image: Annotated[bytes, EncodedBytes(encoder=Base64)] = Field(
        description=(
            "The file of a JPEG, PNG, WebP, BMP, GIF or TIFF image, in base64. Characters outside "
            "the alphabet are skipped; a `data:` prefix is not accepted."
        ),
        examples=[
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
        ],
    )

    _several: list[Sent] | None = PrivateAttr(None)

    @property
    def several(self) -> list[Sent] | None:
        """The images of a body that brings several."""
        return self._several

    @model_validator(mode="wrap")
    @classmethod
    def _from_any_body(
        cls, body: Any, handler: ModelWrapValidatorHandler["RunRequest"]
    ) -> "RunRequest":
        sent = images_of(body)
        if sent is None:
            return handler(body)
        if isinstance(sent, bytes):
            return cls.model_construct(image=sent)
        return cls.model_construct(image=b"").bring(sent)

    def bring(self, several: list[Sent]) -> Self:
        """Bring several images in place of one."""
        self._several = several
        return self


class ScoreResponse(BaseModel):
    """One class and its score."""

    category: str = Field(description="The class's index, at least two digits.", examples=["07"])
    label: str | None = Field(
        description="The class's name; null if the version was registered without labels.",
        examples=["daisy"],
    )
    score: float = Field(description="What the model answered.", examples=[0.93])


class RunResponse(BaseModel):
    """The answer of a model."""

    category: str = Field(
        description="Index of the largest score, at least two digits.", examples=["07"]
    )
    scores: list[ScoreResponse] | None = Field(
        None, description="With `top_k`: the classes with the largest scores, the largest first."
    )


class BatchResponse(BaseModel):
    """The answers to several images."""

    results: list["RunResponse | ErrorResponse"] = Field(
        description="For each image, in order, what a run of it alone answers: a category, or an "
        "error whose `request_id` is the call's with the image's number behind it, as in `….0`."
    )


class ErrorResponse(BaseModel):
    """Every error: what happened, a stable code, and the request that it happened to."""

    detail: str | list[dict[str, Any]] = Field(
        description="What happened, for people. A list of places for a body that does not validate."
    )
    code: str = Field(description="A stable word for scripts.", examples=["model_not_loaded"])
    request_id: str = Field(description="The request's `X-Request-ID`.")


class CheckResponse(BaseModel):
    """The outcome of one health check."""

    ok: bool = Field(description="Whether the check passed.")
    detail: str = Field("", description="What was found.")


class HealthResponse(BaseModel):
    """Whether the server is alive, ready or started, and by which checks."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ok": True, "degraded": [], "checks": {}}]}
    )

    ok: bool = Field(description="Whether every check passed.")
    degraded: list[str] = Field(
        default_factory=list, description="The checks that passed though something is away."
    )
    checks: dict[str, CheckResponse] = Field(
        default_factory=dict, description="Each check by its name."
    )
