"""What holds of every family beside the pair of the paper: it learns, samples, is saved, fits the predicted memory."""

import dataclasses
import json

import pytest
import torch

from harness import eval, flops, sample, train
from harness.core import store
from harness.core.workload import Workload
from harness.cost import analytic, crossover
from harness.cost.clock import time_here
from harness.cost.memory import predict_memory
from harness.diffusion import checkpoint
from models import counterpart, create_model, load_weights, spec
from models.families import FAMILIES

OTHERS = [family for family in FAMILIES if family.name not in ("DiT", "DiM")]
of_others = pytest.mark.parametrize("family", OTHERS, ids=lambda family: family.name)


def tiny(family, size="N"):
    return f"{family.name}-{size}/{family.patches[0]}"


def randomised(name, resolution=64, **overrides):
    """A model whose every parameter is drawn anew: a fresh one gives zeros."""
    torch.manual_seed(0)
    model = create_model(name, resolution, **overrides).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def inputs(model, batch=3):
    g = torch.Generator().manual_seed(1)
    side = model.resolution // model.spec.downsample
    x = torch.randn(batch, model.spec.channels, side, side, generator=g)
    return x, torch.randint(0, 1000, (batch,), generator=g), torch.randint(0, 1000, (batch,), generator=g)


@of_others
def test_gradients_reach_every_parameter_and_recomputing_changes_none(family):
    model = randomised(tiny(family), depth=3).train()
    given, keep = inputs(model), torch.zeros(3, dtype=torch.bool)
    gradients = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        model(*given, keep).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(g is not None and g.abs().sum() > 0 for g in gradients[0].values())
    assert all(torch.allclose(g, gradients[1][name], atol=1e-6) for name, g in gradients[0].items())


@of_others
def test_every_way_of_running_it_gives_the_same(family):
    model = randomised(tiny(family))
    outputs = {}
    for way in family.implementations.choices():
        try:
            model.set_implementation(way)
            with torch.no_grad():
                outputs[way] = model(*inputs(model))
        except ValueError as error:
            assert "cannot run here" in str(error)  # noqa: PT017
    assert len(outputs) >= 2
    first = outputs.pop(family.implementations.default)
    assert first.abs().max() > 0.01
    assert all(torch.allclose(out, first, atol=1e-4 * float(first.abs().max())) for out in outputs.values()), outputs


@of_others
def test_a_sample_does_not_depend_on_the_others_of_its_batch(family):
    model = randomised(tiny(family))
    given = inputs(model)
    with torch.no_grad():
        together, alone = model(*given), [model(*(t[i : i + 1] for t in given)) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4 * float(together.abs().max()))


@of_others
def test_labels_and_timesteps_change_what_it_predicts_and_the_null_class_is_what_is_dropped_to(family):
    model = randomised(tiny(family))
    x, t, y = inputs(model)
    with torch.no_grad():
        plain, of_label, of_time = model(x, t, y), model(x, t, (y + 1) % 1000), model(x, (t + 500) % 1000, y)
        dropped = model(x, t, y, torch.ones(3, dtype=torch.bool))
        assert torch.equal(dropped, model(x, t, torch.full_like(y, 1000)))
    for other in (of_label, of_time, dropped):
        assert (plain - other).abs().amax(dim=(1, 2, 3)).min() > 1e-3 * plain.abs().max()


@of_others
def test_its_weights_load_from_a_file_of_their_names(family, tmp_path):
    model, other = randomised(tiny(family)), create_model(tiny(family), 64).eval()
    torch.save({"ema": model.state_dict()}, tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    with torch.no_grad():
        assert torch.equal(other(*inputs(model)), model(*inputs(model)))
    with pytest.raises(ValueError, match="these weights are not of this model"):
        load_weights(other, create_model("DiT-N/2", 64).state_dict())


@of_others
def test_above_the_crossover_it_costs_less_than_the_dit_of_its_size(family):
    for size in ("S", "XL"):
        if size not in family.depths[""]:
            continue
        one = spec(tiny(family, size))
        rival = counterpart(one)
        assert (rival.family, rival.size) == ("DiT", size)
        met, unit = crossover(one, rival), max(one.unit, rival.unit)
        below, above = (int(met // unit) * unit + step for step in (0, unit))
        assert below == 0 or analytic(one, below).macs > analytic(rival, below).macs
        assert analytic(one, above).macs < analytic(rival, above).macs


@of_others
def test_the_crossover_is_recorded_and_shown(family, capsys, tmp_path):
    one = spec(tiny(family))
    rival, records = counterpart(one).name, tmp_path / "flops.jsonl"
    chosen = ["--model", rival, one.name, "--res", "128", "--convention", "thop", "--records", str(records)]
    chosen += ["--details"]
    flops.main(chosen)
    shown = capsys.readouterr().out
    assert f"{one.name} costs less than {rival} " in shown
    assert f"it would cost what {rival} does with" in " ".join(shown.split())
    assert {r.workload["against"] for r in store.load(records) if r.quantity == "crossover"} == {rival}


MEMORY = [{}, {"action": "train"}, {"action": "train", "checkpointing": True}, {"action": "sample"}]


@pytest.mark.parametrize("fields", MEMORY, ids=lambda fields: " ".join(map(str, fields.values())) or "forward")
@of_others
def test_the_predicted_peak_is_within_five_percent_of_what_a_cpu_allocates(family, fields):
    case = Workload(spec=spec(tiny(family, "T"), depth=3), resolution=128, batch=16, **fields)
    found, predicted = time_here(case, "cpu", rounds=1, warmup=1), predict_memory(case, "cpu")
    assert predicted.nbytes == pytest.approx(found.peak_bytes, rel=0.05)
    fixed = predicted.parts["weights"] + predicted.parts["optimizer and EMA"]
    assert found.peak_bytes - fixed > 0.05 * fixed  # the activations are a part that would show


@of_others
def test_it_is_trained_resumed_sampled_and_scored_on_digits(family, capsys, tmp_path):
    run, samples, records = tmp_path / "run", tmp_path / "samples", tmp_path / "records.jsonl"
    device = ["--device", "cpu"]
    model = ["--preset", "digits", "--model", f"{family.name}-N/2", "--batch", "16", "--out", str(run), *device]
    assert train.main([*model, "--steps", "3"]) == 0
    assert train.main([*model, "--steps", "5"]) == 0
    _, state = checkpoint.latest(run / "checkpoints")
    assert state["step"] == 5
    assert checkpoint.spec_of(state["config"]) == spec(f"{family.name}-N/2", channels=1, downsample=1, num_classes=10)
    drawn = ["--ckpt", str(run), "--num-samples", "4", "--steps", "2", "--out", str(samples), *device]
    assert sample.main(drawn) == 0
    assert json.loads((samples / "settings.json").read_text())["model"] == f"{family.name}-N/2"
    scored = ["--ckpt", str(run), "--metric", "is32@digits", "--steps", "2", "--records", str(records), "--offline"]
    scored += ["--work-dir", str(tmp_path / "work"), "--weights-dir", str(tmp_path), "--max-duplicates", "1", *device]
    assert eval.main(scored) == 0
    (score,) = store.load(records)
    assert (score.get("model"), score.verdict) == (f"{family.name}-N/2", "ok")


@pytest.mark.slow
@of_others
def test_its_loss_falls_on_digits(family, capsys, tmp_path):
    run = tmp_path / "run"
    chosen = ["--preset", "digits", "--model", f"{family.name}-N/2", "--steps", "80", "--batch", "64"]
    assert train.main([*chosen, "--out", str(run), "--device", "cpu"]) == 0
    losses = [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]
    assert losses[0] > 0.9  # a fresh one predicts nothing
    assert sum(losses[-10:]) / 10 < 0.3


def test_a_checkpoint_from_before_a_field_was_added_is_read(tmp_path):
    old = {name: value for name, value in dataclasses.asdict(spec("DiM-N/4")).items() if name != "group"}
    assert checkpoint.spec_of({"spec": old}) == spec("DiM-N/4")


def test_an_hourglass_is_of_the_family_that_has_one():
    with pytest.raises(ValueError, match="DiT has no hourglass: group must be 1, not 2"):
        spec("DiT-N/4", group=2)
