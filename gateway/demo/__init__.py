"""
The demo model, which ships with the package: two trained versions of a classifier of handwritten
digits, a picture of a seven, and 300 labelled pictures that neither version saw in training.

How they were made: `tools/demo/digits` in the repository.
"""

from pathlib import Path

from gateway.converter.errors import RepositoryReadOnly, VersionExists
from gateway.converter.model_config import ConfigOptions
from gateway.converter.placement import Placement
from gateway.converter.publish import publish_version

DEMO_MODEL = "digits"
FOLDER = Path(__file__).parent
FIRST_VERSION = FOLDER / "digits-v1.onnx"
SECOND_VERSION = FOLDER / "digits-v2.onnx"
SAMPLE = FOLDER / "sample-7.png"
SAMPLE_CATEGORY = "07"
EVALUATION = FOLDER / "evaluation"


def publish_demo(repository: Path) -> None:
    """
    Publish the first version into a model repository, unless it is there or the repository cannot
    be written to.

    It gets one instance with one thread: the demo starts fast on every machine.

    Raises:
        NameConflict, StorageFull: As `publish_version` raises them.
    """
    try:
        publish_version(
            FIRST_VERSION,
            repository=repository,
            name=DEMO_MODEL,
            version=1,
            options=ConfigOptions(placement=Placement(instances=1, intra_op_threads=1)),
        )
    except (RepositoryReadOnly, VersionExists):
        return
