"""`tokenlabel push`: a trained model to a hub repository, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["push"]


def push(
    *,
    repository: str,
    checkpoint: Path,
    model: str | None = None,
    weights: Literal["auto", "ema", "model"] = "auto",
    license: str = "apache-2.0",
    private: bool = False,
    dry_run: Path | None = None,
) -> None:
    """Upload a trained model with a model card to the Hugging Face Hub.

    The card lists the recipe, the fingerprints of images and labels, and every evaluation that
    `tokenlabel eval` wrote to the run folder. Log in first, with `hf auth login`.

    Args:
        repository: owner/name; created if it does not exist.
        checkpoint: A run folder, or a weights file together with --model.
        model: timm model name, for a weights file.
        weights: Which weights of a run: the moving average (ema) or the trained weights (model).
        license: License of the weights, by its Hugging Face identifier.
        private: Create a private repository.
        dry_run: Write the files to this folder, and upload nothing.
    """
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    from tokenlabel.errors import InputError
    from tokenlabel.evaluation.load import load_classifier
    from tokenlabel.export.card import in_python, model_card
    from tokenlabel.export.timm_folder import export_timm

    if repository.count("/") != 1:
        raise InputError(f"{repository}: a repository is named owner/name")
    classifier = load_classifier(checkpoint, model, weights=weights)
    card = model_card(classifier, repository, license)
    if dry_run is not None:
        export_timm(classifier, dry_run, card)
        print(f"{dry_run} holds what would be uploaded to {repository}")
        print("next: the same command without --dry-run")
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        export_timm(classifier, folder, card)
        try:
            hub = HfApi(library_name="tokenlabel")
            hub.create_repo(repository, private=private, exist_ok=True)
            uploaded = hub.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Add the model"
            )
        except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"cannot upload to {repository}: {reason}") from None
    print(f"uploaded: {uploaded}")
    print(f"next, in Python: {in_python(classifier, f'hf-hub:{repository}')}")
