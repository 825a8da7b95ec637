"""The trainer: exact continuation, one process or two, what the optimizer really sees, and how it refuses."""

import dataclasses
import fcntl
import functools
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from harness import sample, train
from harness.core.distributed import Ranks
from harness.core.locks import locked
from harness.diffusion import checkpoint, gradients, learner, throughput, training
from harness.diffusion.config import PRESETS
from harness.diffusion.losses import LossLog
from harness.diffusion.numerics import set_precision
from harness.diffusion.sample_config import WeightsConfig
from harness.diffusion.trained import load_trained
from harness.suites.fitting import fit
from models import ModelSpec, create_model, spec
from models.denoiser import Denoiser

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--model", "DiT-N/4", "--batch", "16", "--device", "cpu"]


def run(where, *flags):
    return train.main([*TINY, "--out", str(where), *map(str, flags)])


def newest(where):
    found = checkpoint.latest(where / "checkpoints")
    assert found
    return found[1]


def losses(where):
    return [json.loads(line) for line in (where / "losses.jsonl").read_text().splitlines()]


def assert_same(left, right, path="state"):
    """Two nested containers of tensors, bit for bit."""
    assert type(left) is type(right), path
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list):
        assert len(left) == len(right), path
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{path}[{number}]")
    else:
        assert left == right, path


def assert_same_run(left, right):
    a, b = newest(left), newest(right)
    for key in ("step", "model", "ema", "optimizer"):
        assert_same(a[key], b[key], key)
    assert losses(left) == losses(right)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run of 60 steps."""
    where = tmp_path_factory.mktemp("runs") / "whole"
    assert run(where, "--steps", 60) == 0
    return where


@pytest.mark.slow
def test_a_run_killed_with_sigkill_ends_as_if_it_had_not_been(whole, tmp_path):
    where = tmp_path / "killed"
    command = [sys.executable, "-m", "harness.train", *TINY, "--out", str(where), "--steps", "100000"]
    process = subprocess.Popen([*command, "--checkpoint-every", "7"], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not list(where.glob("checkpoints/step-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()  # wherever it happens to be
    assert process.wait() == -signal.SIGKILL
    reached = newest(where)["step"]
    assert 0 < reached < 60, "it was to be killed within the 60 steps of the whole run"
    assert run(where, "--steps", 60) == 0
    assert_same_run(where, whole)


def test_sigterm_writes_a_checkpoint_exits_with_75_and_continues_exactly(whole, tmp_path, monkeypatch, capsys):
    real = LossLog.add

    def log_and_be_told_to_stop(*arguments):
        real(*arguments)
        monkeypatch.setattr(LossLog, "add", real)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(LossLog, "add", log_and_be_told_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    assert run(tmp_path, "--steps", 60) == 75
    assert "stopped at step 21 of 60" in capsys.readouterr().out
    assert newest(tmp_path)["step"] == 21
    assert signal.getsignal(signal.SIGTERM) == before
    assert run(tmp_path, "--steps", 60) == 0
    assert_same_run(tmp_path, whole)


def test_a_dim_run_continues_exactly(tmp_path):
    assert run(tmp_path / "whole", "--model", "DiM-N/4", "--steps", 8, "--seed", 3) == 0
    assert run(tmp_path / "parts", "--model", "DiM-N/4", "--steps", 5, "--seed", 3) == 0
    assert run(tmp_path / "parts", "--model", "DiM-N/4", "--steps", 8, "--seed", 3) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_torn_line_of_the_loss_log_is_dropped_on_continuing(tmp_path):
    run(tmp_path, "--steps", 4)
    with open(tmp_path / "losses.jsonl", "a") as file:
        file.write('{"step": 5, "loss": 1.0, "gradient_norm": 1.0}\n{"step": 6, "lo')
    run(tmp_path, "--steps", 6)
    assert [line["step"] for line in losses(tmp_path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_gloo_processes_train_as_one(whole, tmp_path):
    """The same loss curve and weights within floating-point reordering, by the same command under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launcher, "harness.train", *TINY, "--out", str(tmp_path), "--steps", "20"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    alone, together = losses(whole)[:20], losses(tmp_path)
    assert [line["loss"] for line in together] == pytest.approx([line["loss"] for line in alone], rel=1e-4)
    norms = [line["gradient_norm"] for line in alone]
    assert [line["gradient_norm"] for line in together] == pytest.approx(norms, rel=1e-3)


def test_accumulation_computes_the_same_step_in_parts(whole, tmp_path):
    run(tmp_path, "--steps", 20, "--accumulate", 4)
    alone = [line["loss"] for line in losses(whole)[:20]]
    assert [line["loss"] for line in losses(tmp_path)] == pytest.approx(alone, rel=1e-4)


def test_ema_follows_the_weights_by_hand(tmp_path):
    run(tmp_path, "--steps", 2, "--checkpoint-every", 1, "--ema-decay", 0.75)
    first, second = (checkpoint.read(path) for path in checkpoint.find(tmp_path / "checkpoints"))
    for name, value in second["model"].items():
        expected = 0.75 * first["ema"][name] + 0.25 * value
        assert torch.allclose(second["ema"][name], expected, atol=1e-7), name
        assert not second["ema"][name].requires_grad, "an average outside autograd: a graph would grow with every step"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A run of 6 steps, stopped and continued halfway, that keeps averages of two decays beside its own."""
    where = tmp_path_factory.mktemp("runs") / "several"
    for steps in (3, 6):
        assert run(where, "--steps", steps, "--ema-decay", 0.75, "--further-ema-decays", 0.9, 0.5) == 0
    return where


@pytest.mark.parametrize("decay", [0.5, 0.75, 0.9])
def test_one_run_keeps_the_averages_that_runs_of_each_decay_would(several, tmp_path, decay):
    run(tmp_path, "--steps", 6, "--ema-decay", decay)
    alone, kept = newest(tmp_path), newest(several)
    assert_same(kept["model"], alone["model"])
    assert_same(kept["ema"] if decay == 0.75 else kept["further_ema"][decay], alone["ema"])
    assert "further_ema" not in alone


@pytest.mark.parametrize("decay", [0.5, 0.75, 0.9])
def test_samples_are_of_the_average_that_is_chosen(several, decay):
    state = newest(several)
    trained = load_trained(several, torch.device("cpu"), WeightsConfig(ema_decay=decay))
    expected = state["ema"] if decay == 0.75 else state["further_ema"][decay]
    assert_same(dict(trained.model.state_dict()), expected)
    assert trained.training["ema_decay"] == decay, "what its weights follow from"
    assert trained.origin.get("ema_decay", 0.75) == decay, "or samples of another average would be taken for its own"


def test_a_folder_holds_samples_of_one_average(several, tmp_path, capsys):
    draw = ["--ckpt", str(several), "--out", str(tmp_path), "--num-samples", "2", "--steps", "2"]
    assert sample.main([*draw, "--ema-decay", "0.5"]) == 0
    assert sample.main([*draw, "--ema-decay", "0.5"]) == 0
    for decay, requested in (([], None), (["--ema-decay", "0.9"], 0.9)):
        with pytest.raises(SystemExit) as exit_:
            sample.main([*draw, *decay])
        assert exit_.value.code == 2
        assert f"ema_decay is 0.5, requested {requested}; choose another --out" in capsys.readouterr().err


def test_an_average_that_a_checkpoint_does_not_keep_is_refused(several):
    with pytest.raises(ValueError, match=re.escape("keeps no average of decay 0.6; choose from 0.75, 0.5, 0.9")):
        load_trained(several, torch.device("cpu"), WeightsConfig(ema_decay=0.6))


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "continue with --further-ema-decays 0.5 0.9, or choose another --out"),
        (["--further-ema-decays", 0.9], "continue with --further-ema-decays 0.5 0.9, or choose another --out"),
        (["--further-ema-decays", 0.9, 0.5, 0.6], "continue with --further-ema-decays 0.5 0.9, or"),
        (["--further-ema-decays", 0.75], "--further-ema-decays repeats a decay; the run's own is 0.75"),
        (["--further-ema-decays", 1], "further_ema_decays must lie in [0, 1)"),
    ],
)
def test_no_average_begins_halfway(several, capsys, flags, complaint):
    before = sorted(path.name for path in several.rglob("*"))
    with pytest.raises(SystemExit) as exit_:
        run(several, "--steps", 7, "--ema-decay", 0.75, *flags)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err
    assert sorted(path.name for path in several.rglob("*")) == before


def test_first_step_of_adamw_moves_every_parameter_by_the_learning_rate(tmp_path):
    """Bias-corrected, the first Adam step is lr g / (|g| + eps): without decay, no entry moves further than lr."""
    run(tmp_path, "--steps", 2, "--checkpoint-every", 1, "--learning-rate", 0.01)
    first, second = (checkpoint.read(path) for path in checkpoint.find(tmp_path / "checkpoints"))
    torch.manual_seed(0)
    initial = create_model(ModelSpec(**first["config"]["spec"]), 8).state_dict()
    moved = (first["model"]["final_layer.linear.weight"] - initial["final_layer.linear.weight"]).abs()
    assert moved.max().item() == pytest.approx(0.01, rel=1e-3)
    unmoved = first["model"]["blocks.0.attn.qkv.weight"] - initial["blocks.0.attn.qkv.weight"]
    assert torch.equal(unmoved, torch.zeros_like(unmoved)), "zero gates give no gradient, and there is no weight decay"
    assert not torch.equal(first["model"]["x_embedder.proj.weight"], second["model"]["x_embedder.proj.weight"])


def test_clipping_bounds_what_the_optimizer_sees(tmp_path, monkeypatch):
    seen = []

    class Recorder(torch.optim.AdamW):
        def step(self, *arguments):
            seen.append(torch.nn.utils.get_total_norm([p.grad for g in self.param_groups for p in g["params"]]).item())
            return super().step(*arguments)

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    run(tmp_path, "--steps", 3, "--clip-norm", 0.05)
    logged = [line["gradient_norm"] for line in losses(tmp_path)]
    assert min(logged) > 0.06, "what is logged is the norm before clipping"
    assert seen == pytest.approx([0.05] * 3, rel=1e-3)

    seen.clear()
    run(tmp_path / "later", "--steps", 3, "--clip-norm", 0.05, "--clip-after", 2)
    logged = [line["gradient_norm"] for line in losses(tmp_path / "later")]
    assert seen == pytest.approx([*logged[:2], 0.05], rel=1e-3), "Latte's recipe starts to clip late"


def test_checkpointing_activations_changes_nothing(whole, tmp_path):
    run(tmp_path, "--steps", 5, "--checkpoint-activations")
    assert losses(tmp_path) == losses(whole)[:5]


def test_kept_operands_change_nothing_and_are_refused_where_nothing_is_recomputed(tmp_path, monkeypatch, capsys):
    kept, keep = [], Denoiser.keep_operands
    monkeypatch.setattr(Denoiser, "keep_operands", lambda self: (kept.append(self), keep(self)))
    dim = ["--model", "DiM-P/4", "--steps", 5]
    for where, flags in (("recomputed", []), ("kept", ["--keep-operands"])):
        assert run(tmp_path / where, *dim, *flags) == 0
    assert len(kept) == 1
    assert_same_run(tmp_path / "recomputed", tmp_path / "kept")
    for flags, complaint in (
        (["--keep-operands"], "--keep-operands changes nothing for DiT-N/4: DiT recomputes no operands"),
        ([*dim, "--auto-fit", "--keep-operands"], "leave --keep-operands out"),
    ):
        with pytest.raises(SystemExit) as exit_:
            run(tmp_path / "other", *flags)
        assert exit_.value.code == 2
        assert complaint in capsys.readouterr().err


def test_compile_traces_the_whole_model_and_changes_nothing(whole, tmp_path, monkeypatch):
    """Dynamo with its eager backend: the graph is captured without breaks, the arithmetic stays."""
    traced = functools.partialmethod(torch.nn.Module.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    run(tmp_path, "--steps", 3, "--compile")
    assert [line["loss"] for line in losses(tmp_path)] == pytest.approx([line["loss"] for line in losses(whole)[:3]])


def test_bf16_keeps_parameters_and_optimizer_in_fp32(whole, tmp_path):
    run(tmp_path, "--steps", 20, "--precision", "bf16")
    state = newest(tmp_path)
    moments = [value for entry in state["optimizer"]["state"].values() for value in entry.values()]
    assert {value.dtype for value in [*state["model"].values(), *state["ema"].values(), *moments]} == {torch.float32}
    alone, mixed = [line["loss"] for line in losses(whole)[:20]], [line["loss"] for line in losses(tmp_path)]
    assert mixed != alone
    assert mixed == pytest.approx(alone, rel=0.05)


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True)])
def test_tf32_is_on_exactly_when_named(tmp_path, precision, allowed):
    run(tmp_path, "--steps", 1, "--precision", precision)
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert newest(tmp_path)["config"]["precision"] == precision
    set_precision("fp32")


def test_milestones_stay(tmp_path):
    run(tmp_path, "--steps", 6, "--checkpoint-every", 1, "--checkpoint-at", 2, 3)
    names = [path.name for path in checkpoint.find(tmp_path / "checkpoints")]
    assert names == ["milestone-0000002.pt", "milestone-0000003.pt", "step-0000005.pt", "step-0000006.pt"]


def test_labels_are_dropped_to_the_null_class_at_the_asked_rate():
    from harness.data.digits import Digits
    from harness.diffusion.batches import draw_batch

    batch = draw_batch(Digits(8), PRESETS["digits"], (1, 8, 8), False, 5, range(128))
    rates = [
        draw_batch(Digits(8), PRESETS["digits"], (1, 8, 8), False, step, range(128)).drop_labels.float().mean().item()
        for step in range(20)
    ]
    assert np.mean(rates) == pytest.approx(0.1, abs=0.02)
    again = draw_batch(Digits(8), PRESETS["digits"], (1, 8, 8), False, 5, range(40, 64))  # not on a block's border
    assert torch.equal(again.noise, batch.noise[40:64])
    assert torch.equal(again.items, batch.items[40:64])


def test_a_loss_that_is_not_finite_stops_with_step_streams_and_last_good_checkpoint(tmp_path, monkeypatch, capsys):
    real, calls = learner.training_loss, []

    def poisoned(*arguments):
        calls.append(None)
        return real(*arguments) * (float("nan") if len(calls) == 12 else 1)

    monkeypatch.setattr(learner, "training_loss", poisoned)
    assert run(tmp_path, "--steps", 40, "--checkpoint-every", 10) == 1
    message = capsys.readouterr().err
    assert "at step 12" in message
    assert "(seed 0, 'train', 11, 0..0)" in message
    assert "step-0000010.pt" in message
    assert newest(tmp_path)["step"] == 10
    assert all(torch.isfinite(value).all() for value in newest(tmp_path)["model"].values())


def test_a_failing_disk_ends_the_run_with_code_1(tmp_path, monkeypatch, capsys):
    def full(path, write):
        raise OSError(28, "No space left on device")

    run(tmp_path, "--steps", 2)
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    assert run(tmp_path, "--steps", 4) == 1
    assert "No space left on device; the last good checkpoint is" in capsys.readouterr().err
    assert newest(tmp_path)["step"] == 2


def test_dry_run_prints_the_configuration_and_writes_nothing(tmp_path, capsys):
    assert run(tmp_path / "run", "--preset", "digits", "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["learning_rate"] == PRESETS["digits"].learning_rate
    how = ["--further-ema-decays", 0.9, "--checkpoint-every", 7, "--batch", 256, "--auto-fit", "--card-gib", 0.01]
    assert run(tmp_path / "run", "--preset", "digits", "--dry-run", *how) == 0
    chosen = json.loads(capsys.readouterr().out)["execution"]
    assert (chosen["further_ema_decays"], chosen["checkpoint_every"]) == ([0.9], 7)
    assert chosen["activation_checkpointing"] is True, "what --auto-fit has chosen"
    assert not (tmp_path / "run").exists()


def test_imagenet_preset_is_the_papers_recipe():
    recipe = PRESETS["imagenet256"]
    assert (recipe.learning_rate, recipe.batch, recipe.ema_decay, recipe.class_dropout) == (1e-4, 256, 0.9999, 0.1)
    assert (recipe.flip, recipe.steps, recipe.resolution, recipe.num_classes) == (True, 400_000, 256, 1000)


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
                tmp_path / "tree" / name / f"{i}.jpg"
            )
    return tmp_path / "tree"


def test_an_image_tree_trains_in_pixel_space(tree, tmp_path):
    flags = ["--data", tree, "--num-classes", 2, "--resolution", 16, "--steps", 2, "--workers", 1, "--skip-corrupt"]
    (tree / "bee" / "1.jpg").write_bytes((tree / "bee" / "1.jpg").read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"bee/1\.jpg"):
        assert run(tmp_path / "run", *flags) == 0
    assert newest(tmp_path / "run")["config"]["spec"]["channels"] == 3


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--model", "DiT-N/3"], "unknown model 'DiT-N/3'"),
        (["--data", "/nowhere"], "no data at '/nowhere'"),
        (["--num-classes", "9"], "digits has 10 classes, the model 9; pass --num-classes 10"),
        (["--resolution", "10"], "not divisible by 4"),
        (["--steps", "0"], "must be at least 1"),
        (["--batch", "16", "--accumulate", "3"], "do not divide into 3"),
        (["--learning-rate", "-1"], "learning_rate must lie between 0 and 1"),
        (["--ema-decay", "1.5"], "ema_decay must lie in [0, 1)"),
        (["--vae", "/nowhere/vae"], "digits has 1 channel"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--checkpoint-at", "1", "7"], "--checkpoint-at 7 lies beyond the run's 1 steps"),
        (["--preset", "imagenet9"], "unknown --preset 'imagenet9'"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, capsys, flags, complaint):
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "run", "--steps", 1, *flags)
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_corrupt_image_is_named_with_the_flag_that_skips_it(tree, tmp_path, capsys):
    (tree / "bee" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "run", "--data", tree, "--num-classes", 2, "--resolution", 16, "--steps", 2)
    assert exit_.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "bee/1.jpg" in last
    assert "--skip-corrupt" in last


def test_a_run_directory_of_another_run_is_refused(whole, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(whole, "--steps", 60, "--seed", 1)
    assert exit_.value.code == 2
    assert "seed was 0, now 1; choose another --out" in capsys.readouterr().err


WITHOUT_TORCH = """
import importlib, sys
try:
    code = importlib.import_module(sys.argv[1]).main(sys.argv[2:])
except SystemExit as exit:
    code = exit.code
heavy = {"torch", "pandas", "sklearn"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("harness.train --help", 0),
        ("harness.train --preset imagenet9", 2),
        ("harness.train --model DiM-Q/9", 2),
        ("harness.train --preset digits --model DiT-N/8-video", 2),
        ("harness.train --stride 2", 2),
        ("harness.train --learning-rate nan", 2),
        ("harness.train --flatten", 2),
        ("harness.sample --help", 0),
        ("harness.sample --ckpt nowhere --steps 0", 2),
        ("harness.sample --ckpt nowhere --cfg-scale inf", 2),
        ("harness.sample --ckpt nowhere --classes cat", 2),
        ("harness.data.__main__ encode --help", 0),
        ("harness.data.__main__ encode --data . --out x --batch 0", 2),
    ],
)
def test_help_and_refusals_need_no_torch(command, code):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *command.split()], cwd=ROOT, capture_output=True)
    assert done.returncode == code, done.stderr.decode()
    assert code == 0 or done.stderr.count(b"\n") == 1


def test_help_shows_examples_defaults_and_presets():
    done = subprocess.run([sys.executable, "-m", "harness.train", "--help"], cwd=ROOT, capture_output=True, text=True)
    for text in ("torchrun --nproc-per-node 8", "(default: 1000)", "(default: digits)", "DiM-T/2 on digits, 8 px"):
        assert text in done.stdout


def test_a_python_caller_trains_and_samples_without_argv(tmp_path):
    from harness.diffusion import Drawing, Execution, SampleConfig, sample
    from harness.diffusion import train as train_a_run

    config = dataclasses.replace(PRESETS["digits"], model="DiT-N/4", batch=16, steps=4)
    resolved: list[dict] = []
    before = torch.get_rng_state()
    done = train_a_run(config, tmp_path / "api", Execution(device="cpu"), announce=resolved.append)
    assert torch.equal(torch.get_rng_state(), before), "a caller's random numbers stay as they are"
    assert (done.step, done.finished, resolved[0]["images"]) == (4, True, 1797)
    assert run(tmp_path / "command", "--steps", 4) == 0
    assert_same_run(tmp_path / "api", tmp_path / "command")
    album = sample(done.out, SampleConfig(steps=2), 3, tmp_path / "album", drawing=Drawing(device="cpu"))
    assert all(album.present(index) for index in range(3))
    with pytest.raises(ValueError, match="1 to 1,000,000 samples, not 0"):
        sample(done.out, SampleConfig(), 0)


def test_a_run_begins_in_words_and_ends_with_where_it_lies_and_the_next_command(tmp_path, capsys):
    assert run(tmp_path / "run", "--steps", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " on digits: 1,797 images of 8 px; 1 steps of " in lines[0]
    assert lines[1].startswith(f"into {tmp_path}/run ")
    assert lines[-1] == f"1 steps in {tmp_path}/run; next: python -m harness.sample --ckpt {tmp_path}/run"


def test_the_help_states_the_settings_that_are_taken_where_none_are_given(capsys):
    for command, settings in (("train", ["steps (digits: 2000)", "(digits: 0.001)", "--dry-run"]),
                              ("sample", ["(default: 100)", "and of the classes (default: 0)", "--num-samples 100"]),
                              ("eval", ["(default: ddpm)", "--metric fd1k@digits pr1k@digits"])):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module(f"harness.{command}").main(["--help"])
        assert stopped.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert all(setting in shown for setting in settings), command


# One process or many


def together(where, processes, *flags, timeout=300):
    """The same command under torchrun; returns what it wrote to stderr, and its exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [*launcher, "harness.train", *TINY, "--out", str(where), *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    return done.stderr, done.returncode


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "accumulate", "alone"), [(2, 1, 2), (2, 2, 4), (3, 1, 3)])
def test_processes_take_the_steps_of_one_that_accumulates_their_parts_bit_for_bit(
    tmp_path, processes, accumulate, alone
):
    flags = ["--steps", 5, "--batch", 12, "--clip-norm", 0.5]
    assert run(tmp_path / "alone", *flags, "--accumulate", alone) == 0
    message, code = together(tmp_path / "together", processes, *flags, "--accumulate", accumulate)
    assert code == 0, message
    assert_same_run(tmp_path / "alone", tmp_path / "together")
    assert (tmp_path / "alone" / "losses.jsonl").read_bytes() == (tmp_path / "together" / "losses.jsonl").read_bytes()


def test_gradients_in_many_buckets_are_those_in_one(tmp_path, monkeypatch):
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 5, 2, 9)]
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 32)
    assert gradients._buckets(parameters) == [[0, 1], [2], [3]]
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 10_000)
    assert gradients._buckets(parameters) == [[0, 1, 2, 3]]


def complaints(message):
    return [line for line in message.splitlines() if "harness.train: error:" in line or line.startswith("process ")]


LATE = """
import os, sys, time
from harness.core.command import Parser, run
absent = sys.argv[1] == "absent on one machine"
time.sleep(0 if absent or os.environ["RANK"] != "0" else 2)  # the first process is the last to come
def work():
    if absent and os.environ["RANK"] == "0":
        time.sleep(60)  # as it would for the others
    raise ValueError("no such folder")
sys.exit(run(Parser(prog="harness.train"), work))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("absent on all machines", "harness.train: error: no such folder"),
        ("absent on one machine", "harness.train: error in process 1: no such folder"),
    ],
)
def test_under_torchrun_bad_input_is_one_line_whichever_process_meets_it_first(tmp_path, case, line):
    script = tmp_path / "late.py"
    script.write_text(LATE)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, script, case],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode
    assert [said for said in done.stderr.splitlines() if "no such folder" in said] == [line]


@pytest.mark.slow
def test_under_torchrun_a_failure_is_one_line_and_ends_all_processes_at_once(tmp_path):
    message, code = together(tmp_path / "run", 2, "--learning-rate", 7)
    assert code
    assert len(complaints(message)) == 1
    with locked(tmp_path / "held"):  # the first process alone sees it; the second waits for the first
        message, code = together(tmp_path / "held", 2, "--steps", 4, timeout=60)
    assert code
    assert len(complaints(message)) == 1
    assert "is in use by process" in complaints(message)[0]
    assert 'Traceback (most recent call last):\n  File "' not in message.split("torch/distributed")[0]


# One directory, one process


def test_a_second_process_in_a_run_s_directory_reads_who_holds_it(tmp_path, capsys):
    with locked(tmp_path):
        assert run(tmp_path, "--steps", 2) == 1
    assert f"{tmp_path} is in use by process {os.getpid()} on" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
    assert run(tmp_path, "--steps", 2) == 0, "the lock goes with its holder"


def test_a_parent_may_hold_a_lock_of_its_own_on_the_directory(tmp_path):
    with (tmp_path / "lock").open("w") as file:  # as harness.reproduce does
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert run(tmp_path, "--steps", 1) == 0


# Damage


def test_a_damaged_checkpoint_does_not_change_what_a_run_ends_with(whole, tmp_path):
    assert run(tmp_path, "--steps", 40, "--checkpoint-every", 20) == 0
    path = tmp_path / "checkpoints" / "step-0000040.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"skipped: .*step-0000040\.pt is damaged"):
        assert run(tmp_path, "--steps", 60, "--checkpoint-every", 20) == 0
    assert_same_run(tmp_path, whole)


def test_a_run_without_a_sound_checkpoint_is_one_line(tmp_path, capsys):
    run(tmp_path, "--steps", 2)
    (tmp_path / "checkpoints" / "step-0000002.pt").write_text("text")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(SystemExit) as exit_:
        run(tmp_path, "--steps", 4)
    assert exit_.value.code == 2
    assert "is sound: remove them to begin anew" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "checkpoints" / "step-0000002.pt").read_text() == "text"


@pytest.mark.parametrize("damage", ["a list", "not UTF-8", "another number", "gone"])
def test_the_loss_log_is_restored_from_the_checkpoint(whole, tmp_path, damage):
    run(tmp_path, "--steps", 30)
    log = tmp_path / "losses.jsonl"
    content = log.read_bytes()
    if damage == "gone":
        log.unlink()
    else:
        other = {"a list": b"[]\n", "not UTF-8": b"\xff\xfe" + content, "another number": content.replace(b"0.", b"9.")}
        log.write_bytes(other[damage])
    assert run(tmp_path, "--steps", 60) == 0
    assert log.read_bytes() == (whole / "losses.jsonl").read_bytes()


def test_a_run_whose_checkpoints_hold_no_losses_keeps_the_lines_that_are_whole(tmp_path):
    run(tmp_path, "--steps", 4)
    path = tmp_path / "checkpoints" / "step-0000004.pt"
    state = torch.load(path, weights_only=True)
    del state["losses"]
    torch.save(state, path)
    log = tmp_path / "losses.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], "[]", *lines[2:], '{"step": 5, "lo']))
    run(tmp_path, "--steps", 6)
    assert [line["step"] for line in losses(tmp_path)] == [1, 3, 4, 5, 6]
    assert losses(tmp_path)[0] == json.loads(lines[0])


# What cannot be


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--seed", str(2**64)], "must be at most"),
        (["--seed", "-1"], "must be at least 0"),
        (["--data", ""], "data must be a text without null bytes, not ''"),
        (["--data", "a\0b"], "data must be a text without null bytes"),
        (["--out", ""], "must be a path, not ''"),
        (["--split-list", "a\0b"], "must be a path"),
        (["--learning-rate", "nan"], "must be a finite number"),
        (["--clip-norm", "inf"], "must be a finite number"),
        (["--stride", "3"], "a stride is of clips"),
        (["--clip-after", "3"], "clip_norm 0 never clips"),
        (["--split-list", "trainlist01.txt"], "--split-list chooses videos"),
        (["--skip-corrupt"], "--skip-corrupt leaves files out, and digits is not read from a tree of files"),
        (["--device", "mps"], "unknown device 'mps'; choose cpu, cuda or cuda:N"),
        (["--device", "meta"], "unknown device 'meta'"),
        (["--resolution", "100000000"], "GiB of memory, and this machine has"),
        (["--batch", str(10**12)], "a part of 1,000,000,000,000 items of 1 x 8 x 8 takes"),
        (["--batch", str(10**23)], "must be at most 1e+15"),
        (["--workers", "100000"], "must be at most 256"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_offender(tmp_path, capsys, flags, complaint):
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "run", "--steps", 1, *flags)
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_destination_is_checked_before_the_work(tmp_path, capsys, out, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(training, "open_data", None)
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / out, "--steps", 1)
    assert exit_.value.code == 2
    assert "cannot write into" in capsys.readouterr().err


# Speed


def test_throughput_by_hand():
    """40 steps of 16 items in 2 s: 50 ms, 320 items/s; at 1e9 FLOP an item 3.2e11 FLOP/s, of 4e12 a share of 8 %."""
    times = iter([100.0, 102.0, 107.0, 108.0])
    speed = throughput.Throughput(Ranks(0, 1, torch.device("cpu")), 16, "fp32", 1e9, clock=lambda: next(times))
    speed.peak = 4e12
    speed.start(10)
    lap = speed.lap(50)
    assert (lap.step, lap.step_ms, lap.samples_per_s, lap.flop_per_s, lap.mfu) == (50, 50.0, 320.0, 3.2e11, 0.08)
    assert lap.postfix()["MFU"] == "8.0%"
    speed.start(50)  # five seconds of saving a checkpoint do not count
    assert speed.lap(60).step_ms == 100.0


@pytest.mark.parametrize(("card", "peak"), [("NVIDIA H100 80GB HBM3", 989.4e12), ("a card without a sheet", None)])
def test_the_peak_of_a_run_is_that_of_all_its_devices_by_their_data_sheet(monkeypatch, card, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: card)
    speed = throughput.Throughput(Ranks(0, 2, torch.device("cuda")), 16, "bf16")
    assert speed.peak == (peak and pytest.approx(2 * peak))


def test_a_training_step_costs_three_forward_passes_and_joint_images_those_over_space():
    from harness.cost import analytic
    from harness.cost.training import training_macs

    image, clip = spec("DiT-XL/2"), spec("DiT-XL/2-video")
    assert training_macs(image, 256) == 3 * analytic(image, 256).macs
    half = dataclasses.replace(image, depth=14)  # blocks over space and over time alternate
    assert training_macs(clip, 256, 8) == 3 * (analytic(clip, 256).macs + 8 * analytic(half, 256).macs)


def test_a_run_writes_down_its_speed(tmp_path):
    run(tmp_path, "--steps", 25)
    laps = [json.loads(line) for line in (tmp_path / "throughput.jsonl").read_text().splitlines()]
    assert [lap["step"] for lap in laps] == [20, 25]
    assert all(lap["samples_per_s"] > 0 and lap["flop_per_s"] > 0 and lap["mfu"] is None for lap in laps)


# Training at scale: what differs is where things lie and how they travel, not what is learnt


def curve(where, key="loss"):
    return np.array([line[key] for line in losses(where)])


SCALED = ["--steps", 15, "--batch", 16]
CLIPS = ["--preset", "moving-digits", "--model", "DiT-P/4-video", "--batch", 4, "--joint-images", 2, "--clip-norm", 0]
CLIPS += ["--further-ema-decays", 0.5]
VARIANTS = {  # name: processes, flags, and how far losses and norms may lie from those of one process
    "shared": (2, ["--fsdp"], 0),  # a sum of two has one order: bit for bit
    "rounded": (2, ["--reduce-dtype", "bf16", "--clip-norm", 0.5], 2e-2),  # gradients of eight bits
    "shared by four": (4, ["--fsdp", "--checkpoint-activations", "--clip-norm", 0.5], 1e-5),  # summed in another order
    "rounded by four": (4, ["--fsdp", "--reduce-dtype", "bf16", "--accumulate", 2, "--clip-norm", 0.5], 2e-2),
}


def _train_in_turn(rank, port, runs):
    """Each run by the first `world` of four processes; of one, it is no group."""
    torch.set_num_threads(1)
    for number, (world, where, flags) in enumerate(runs):
        group = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "localhost"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (group | {"MASTER_PORT": str(port + number)} if world > 1 else {}).items():
                patch.setenv(name, value)
            if rank < world:  # the others meet the first one again in the next group
                assert run(where, *flags) == 0


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """Each variant, and a run of clips that is shared for two steps, alone for two, and shared again."""
    out = tmp_path_factory.mktemp("scaled")
    runs = [(world, out / name, [*SCALED, *flags]) for name, (world, flags, _) in VARIANTS.items()]
    shared, alone = [*CLIPS, "--fsdp", "--steps"], [*CLIPS, "--accumulate", 2, "--steps"]
    runs += [(2, out / "clips", [*shared, 2]), (1, out / "clips", [*alone, 4]), (2, out / "clips", [*shared, 6])]
    mp.spawn(_train_in_turn, args=(35_000 + os.getpid() % 1000, runs), nprocs=4)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_shared_models_and_rounded_gradients_learn_as_one_process_does(scaled, tmp_path, name):
    world, flags, tolerance = VARIANTS[name]
    clipped = flags[flags.index("--clip-norm") :] if "--clip-norm" in flags else []
    assert run(tmp_path, *SCALED, *clipped, "--accumulate", world) == 0
    for key in ("loss", "gradient_norm"):  # which are sums over processes, too, in the log
        np.testing.assert_allclose(curve(scaled / name, key), curve(tmp_path, key), rtol=max(tolerance, 1e-6))
    if tolerance == 0:
        assert_same_weights(scaled / name, tmp_path)
    if "bf16" in flags:
        assert (curve(scaled / name) != curve(tmp_path))[1:].any(), "gradients are rounded"


@pytest.mark.slow
def test_a_shared_run_of_clips_continues_alone_and_an_unshared_one_shared(scaled, tmp_path):
    """A checkpoint is whole, whoever wrote it; blocks of video models run twice a pass beside joint images."""
    assert run(tmp_path, *CLIPS, "--accumulate", 2, "--steps", 6) == 0
    assert_same_weights(scaled / "clips", tmp_path)
    np.testing.assert_allclose(curve(scaled / "clips"), curve(tmp_path), rtol=1e-6)


def assert_same_weights(left, right):
    a, b = newest(left), newest(right)
    for key in ("step", "model", "ema", "further_ema", "optimizer"):
        assert_same(a.get(key), b.get(key), key)


def test_one_process_cannot_share(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--fsdp", "--steps", 1)
    assert "--fsdp shares a model among processes, and there is one" in capsys.readouterr().err


def test_auto_fit_recomputes_and_then_takes_parts_by_prediction(tmp_path, capsys):
    fitted = ["--model", "DiT-N/2", "--batch", 64, "--steps", 1, "--auto-fit"]
    assert run(tmp_path / "whole", *fitted) == 0
    assert "auto-fit: no flag; a process takes" in capsys.readouterr().err
    assert run(tmp_path / "less", *fitted, "--card-gib", 0.02) == 0
    assert "auto-fit: --checkpoint-activations; a process takes" in capsys.readouterr().err
    assert curve(tmp_path / "less") == pytest.approx(curve(tmp_path / "whole"))
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, *fitted, "--accumulate", 2)
    assert "--auto-fit chooses" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--card-gib", 1)
    assert "--card-gib is of --auto-fit" in capsys.readouterr().err


def test_a_prediction_counts_each_further_average_as_the_weights():
    config = dataclasses.replace(PRESETS["digits"], model="DiT-N/2")
    model = config.spec(channels=1, downsample=1)
    weights = 4 * sum(p.numel() for p in create_model(model, config.resolution, device="meta").parameters())
    for processes, nbytes, share in ((1, 1e12, 1), (2, 0, 2)):  # nothing fits in 0 bytes: the last way shares
        alone, three = (fit(config, model, processes, nbytes, further_averages=n) for n in (0, 3))
        assert three.shared == (processes > 1)
        assert three.nbytes - alone.nbytes == pytest.approx(3 * weights / share, rel=0.01)  # buffers beside them


def test_a_run_that_is_past_what_is_requested_is_finished(tmp_path, capsys):
    assert run(tmp_path, "--steps", 5) == 0
    assert run(tmp_path, "--steps", 3) == 0
    assert "stopped" not in capsys.readouterr().out


def test_a_milestone_of_the_present_step_is_written_and_one_of_an_earlier_step_cannot_be(tmp_path, capsys):
    assert run(tmp_path, "--steps", 4) == 0
    assert run(tmp_path, "--steps", 4, "--checkpoint-at", 4) == 0
    assert (tmp_path / "checkpoints" / "milestone-0000004.pt").exists()
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "--steps", 4, "--checkpoint-at", 2, 4)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "is at step 4 and has no checkpoint of its step 2: leave 2 out of --checkpoint-at, or remove" in error
