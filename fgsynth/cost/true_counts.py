"""What a guided image takes at true size, counted instead of run: floating-point operations, memory.

The networks are built of tensors without numbers (PyTorch's FakeTensorMode), the sampler's own code runs on
them, and what passes is counted: minutes on any machine, however little memory it has.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fgsynth.cost.true_shapes import true_size
from fgsynth.cost.true_size import CFG, CLASSIFIERS, SIDE
from fgsynth.generate.generator import Generator
from fgsynth.generate.resize import at_resolution
from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.models.networks import Classifier, create
from fgsynth.utils.paths import write_text

N_STEPS = 30
BATCHES = (1, 2, 4, 8, 16, 32)
PRECISIONS = ("bfloat16", "float32")
FEEDBACK = ("none", "cheap", "exact")
WORK = ["classifier", "evaluation", "half_tflop", "full_tflop"]
"""TFLOP of one evaluation, as `estimate.Evaluations` names them; half: in 16 bits; full: in float32."""
MEMORY = ["precision", "gradient", "batch", "gib"]


class Tally(TorchDispatchMode):
    """Counts operations by the precision of their results, and the most bytes of tensors alive.

    held: tensors that are there before. A storage counts once however many tensors look at it. What a kernel
    takes for itself, and what an allocator keeps back, is not seen.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.flops: Counter[torch.dtype] = Counter()
        self.peak = self._alive = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in held:
            self._born(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and book it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if (work := flop_registry.get(func.overloadpacket)) is not None:
            self.flops[tensors[0].dtype] += work(*args, **kwargs, out_val=out)
        for t in tensors:
            self._born(t.untyped_storage())
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self._alive += storage.nbytes()
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self._alive -= size


def without_numbers(network: nn.Module) -> nn.Module:
    """The network with fake tensors in place of its own; to be called in a FakeTensorMode."""
    for module in network.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(torch.empty_like(p, device="cpu"), False))
        for name, b in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.empty_like(b, device="cpu"))
    return network


def fake(generator: Generator, mode: FakeTensorMode) -> Generator:
    """A generator on the meta device with its networks on a fake one, where its own code runs."""
    with mode:
        redux = getattr(generator.pipe, "image_embedder", None)
        for part in (*generator.networks.values(), *filter(None, [redux])):
            without_numbers(part)
    return generator


@dataclass
class Scene:
    """A generator and a guide without numbers; what a batch of them does can be tallied."""

    generator: Generator
    classifier: Classifier
    side: int
    mode: FakeTensorMode
    _held: list[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        redux = getattr(self.generator.pipe, "image_embedder", None)
        parts = (*self.generator.networks.values(), self.classifier, *filter(None, [redux]))
        self._held = [t for part in parts for t in (*part.parameters(), *part.buffers())]

    @classmethod
    def of(cls, precision: str, classifier: str) -> "Scene":
        """The published shapes in a precision, with a guide by name."""
        return cls.with_guide(true_size(N_STEPS, getattr(torch, precision), "meta"), classifier)

    @classmethod
    def with_guide(cls, generator: Generator, classifier: str) -> "Scene":
        """A generator on the meta device, with a guide by name."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        generator = fake(generator, mode)
        with mode:
            guide = create(classifier, CLASSIFIERS[classifier]).eval().requires_grad_(False)
        return cls(generator, guide, SIDE, mode)

    def tally(self, what: str, batch: int = 1) -> Tally:
        """What one act of a batch takes.

        denoiser, decoder, classifier: a pass without gradient, the denoiser's for both halves of
        classifier-free guidance. classifier and back. cheap, exact: a guided step. All from prompts on.
        """
        with self.mode, torch.no_grad():
            g, label = self.generator, torch.zeros(batch, dtype=torch.long)
            image = torch.zeros(batch, *g.family.image_shape, dtype=g.dtype)
            predict = g.predict(g.embed_text(["a"] * batch), image, CFG)
            z, t = g.noise(range(batch)), g.schedule.steps[0][0]
            x = torch.empty(batch, 3, *(s * g.pipe.vae_scale_factor for s in z.shape[2:]))
            seen = at_resolution(self.classifier, self.side)
            acts: dict[str, Callable[[], object]] = {
                "denoiser": lambda: predict(z, t),
                "decoder": lambda: g.decode(z),
                "classifier": lambda: seen(x),
                "classifier and back": lambda: _back(seen, x),
            }
            for name in ("cheap", "exact"):
                model = guide(
                    predict, seen, entropy, label, g.schedule,
                    Guidance(through_network=name == "exact"), g.decode_for_guidance, one_by_one=g.large,
                )  # fmt: skip
                acts[name] = lambda model=model: model.gradient(z, t)  # type: ignore[misc]
            with Tally(self._held) as tally:
                acts[what]()
        return tally


def _back(classifier: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> None:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        torch.autograd.grad(classifier(x)[0].sum(), x)


def work(scene: Scene) -> dict[str, Counter[torch.dtype]]:
    """Operations of one evaluation of each kind that `estimate.Evaluations` counts, by precision.

    Backwards hold what checkpoints compute again. Under classifier-free guidance a step is two evaluations of
    the denoiser, unless it takes the scale as a number; every kind is what is left of a guided step when the
    others are taken away.
    """
    part = 1 if scene.generator.family.folds_cfg else 2
    names = ("denoiser", "decoder", "classifier", "classifier and back", "cheap", "exact")
    f = {name: scene.tally(name).flops for name in names}
    step, decoder, classifier = f["denoiser"], f["decoder"], f["classifier"]
    return {
        "denoiser": _share(step, part),
        "denoiser_back": _share(f["exact"] - f["cheap"], part),
        "decoder": decoder,
        "decoder_back": f["cheap"] - step - decoder - f["classifier and back"],
        "classifier": classifier,
        "classifier_back": f["classifier and back"] - classifier,
    }


def _share(flops: Counter[torch.dtype], part: int) -> Counter[torch.dtype]:
    return Counter({dtype: n // part for dtype, n in flops.items()})


def memory(scene: Scene, batch: int) -> dict[str, float]:
    """GiB of weights and tensors at most, by kind of feedback, while a batch is made."""
    peak = {name: scene.tally(name, batch).peak / 2**30 for name in ("denoiser", "decoder", "cheap", "exact")}
    plain = max(peak["denoiser"], peak["decoder"])
    return {"none": plain, "cheap": max(plain, peak["cheap"]), "exact": max(plain, peak["exact"])}


def run(folder: Path, batches: Sequence[int] = BATCHES) -> str:
    """Count operations by guide and memory by batch; write work.csv and memory.csv, return their text."""
    rows = [
        (name, kind, sum(n for dtype, n in flops.items() if dtype != torch.float32) / 1e12,
         flops[torch.float32] / 1e12)
        for name in CLASSIFIERS
        for kind, flops in work(Scene.of(PRECISIONS[0], name)).items()
    ]  # fmt: skip
    sizes = [
        (precision, gradient, batch, gib)
        for precision in PRECISIONS
        for scene in [Scene.of(precision, next(iter(CLASSIFIERS)))]
        for batch in batches
        for gradient, gib in memory(scene, batch).items()
    ]
    tables = {"work": pd.DataFrame(rows, columns=WORK), "memory": pd.DataFrame(sizes, columns=MEMORY)}
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.5g"))
    return "\n\n".join(table.to_string(index=False) for table in tables.values())
