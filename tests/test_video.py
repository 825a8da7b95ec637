"""Models of clips: Latte's function and checkpoint layout, what mixes with what, joint images apart from the clip."""

import math

import pytest
import torch
import torch.nn.functional as F

from models import catalogue, create_model, load_weights, spec

TINY = [name for name in catalogue(video=True) if "-N/4" in name]
SMALL = {"frames": 5, "channels": 2, "downsample": 1, "num_classes": 10}
T, SIDE = 5, 16
FAMILIES = ["DiT-N/4", "DiM-N/4"]
ARRANGED = [name for name in TINY if "matched" not in name]


def randomised(name: str, seed: int = 0, **overrides):
    """A small model whose every parameter is drawn anew: a fresh one has its gates closed and gives zeros."""
    torch.manual_seed(seed)
    fields = SMALL if "video" in name else {k: v for k, v in SMALL.items() if k != "frames"}
    model = create_model(name, SIDE, **(fields | overrides)).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "A_" in key:
                p.copy_(torch.rand_like(p))  # log decay: keep it moderate
            else:
                p.normal_(std=0.1)
    return model


def inputs(batch: int = 2, joint: int = 0, seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, T + joint, SMALL["channels"], SIDE, SIDE, generator=g)
    t = torch.randint(0, 1000, (batch,), generator=g)
    y = torch.randint(0, 11, (batch, 1 + joint), generator=g)
    return x, t, y if joint else y[:, 0]


# -------------------------------------------------------------------------------------------------------- the catalogue


def test_every_name_parses_back_to_itself_and_has_sixteen_frames():
    for name in catalogue(video=True):
        assert spec(name).name == name
        assert spec(name).frames == 16
    assert not set(catalogue(video=True)) & set(catalogue())


def test_frames_are_named_where_they_depart_from_sixteen():
    assert spec("DiM-XL/2-video", frames=8).name == "DiM-XL/2-video(frames=8)"
    assert spec("DiM-XL/2-video", arrangement="flat") == spec("DiM-XL/2-video-flat")


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        ("DiT-XL/2-movie", {}, "nearest: .*-video"),
        ("DiM-XL/2-video-cube", {}, "-video-both, -video-flat"),
        ("DiT-XL/2-video", {"frames": 0}, "frames of DiT-XL/2-video must be a positive integer"),
        ("DiT-XL/2-video", {"frames": -3}, "frames must be a positive integer"),
        ("DiT-XL/2", {"frames": 8}, "is a model of images and has no frames; of video: DiT-XL/2-video"),
        ("DiT-XL/2", {"arrangement": "flat"}, "arrangement 'flat' is of video"),
        ("DiT-XL/2-video", {"arrangement": "cube"}, "choose from alternating, both, flat"),
    ],
)
def test_a_wrong_name_or_field_is_named(name, overrides, complaint):
    with pytest.raises(ValueError, match=complaint):
        spec(name, **overrides)


@pytest.mark.parametrize("joint", [0, 3])
@pytest.mark.parametrize("name", TINY)
def test_every_arrangement_keeps_the_shape_of_a_clip_and_its_joint_images(name, joint):
    out = create_model(name, SIDE, **SMALL)(*inputs(joint=joint))
    assert out.shape == (2, T + joint, 4, SIDE, SIDE)


def test_a_number_of_frames_that_the_model_does_not_have_is_named():
    x, t, y = inputs(joint=1)
    with pytest.raises(ValueError, match="6 frames for a clip of 5 and 0 joint images"):
        create_model("DiT-N/4-video", SIDE, **SMALL)(x, t, y[:, 0])


# --------------------------------------------------------------------------------------------------------- DiT is Latte


def latte_keys(depth: int) -> list[str]:
    """The keys of Latte's checkpoint of UCF-101."""
    block = "attn.qkv attn.proj mlp.fc1 mlp.fc2 adaLN_modulation.1".split()
    linears = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear"]
    linears += ["final_layer.adaLN_modulation.1"] + [f"blocks.{i}.{name}" for i in range(depth) for name in block]
    keys = [f"{name}.{kind}" for name in linears for kind in ("weight", "bias")]
    return ["pos_embed", "temp_embed", "y_embedder.embedding_table.weight", *keys]


def test_dit_xl_2_video_has_the_keys_and_values_of_lattes_checkpoint():
    state = create_model("DiT-XL/2-video", num_classes=101, device="meta").state_dict()
    assert sorted(state) == sorted(latte_keys(28))
    assert len(state) == 293
    assert sum(v.numel() for v in state.values()) == 674_112_416
    assert state["temp_embed"].shape == (1, 16, 1152)
    assert state["y_embedder.embedding_table.weight"].shape == (102, 1152)


def plain_latte(w: dict, x, t, y, patch: int, heads: int, depth: int):
    """Latte's forward pass from its state dict, one row after the other, each with the condition evaluated anew."""
    B, frames, C, H, _ = x.shape
    side = H // patch

    def linear(name, v):
        return v @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(v):
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()

    def silu(v):
        return v * v.sigmoid()

    def attention(name, row):  # (tokens, D)
        heads_out = []
        for q, k, v in zip(*(part.chunk(heads, -1) for part in linear(f"{name}.qkv", row).chunk(3, -1)), strict=True):
            scores = q @ k.T / q.shape[-1] ** 0.5
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            heads_out.append(weights @ v)
        return linear(f"{name}.proj", torch.cat(heads_out, -1))

    def block(i, row, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"blocks.{i}.adaLN_modulation.1", silu(c)).chunk(6, -1)
        row = row + gate1 * attention(f"blocks.{i}.attn", norm(row) * (1 + scale1) + shift1)
        hidden = linear(f"blocks.{i}.mlp.fc1", norm(row) * (1 + scale2) + shift2)
        hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
        return row + gate2 * linear(f"blocks.{i}.mlp.fc2", hidden)

    out = torch.empty(B, frames, 2 * C, H, H)
    for b in range(B):
        angles = t[b] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        c = silu(linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()])))
        c = linear("t_embedder.mlp.2", c) + w["y_embedder.embedding_table.weight"][y[b]]
        tokens = torch.empty(frames, side * side, len(c))
        for f in range(frames):
            for n in range(side * side):
                h, v = divmod(n, side)
                patches = x[b, f, :, h * patch : (h + 1) * patch, v * patch : (v + 1) * patch].flatten()
                tokens[f, n] = w["x_embedder.proj.weight"].flatten(1) @ patches + w["x_embedder.proj.bias"]
        tokens = tokens + w["pos_embed"]
        for i in range(depth):
            if i % 2 == 0:
                tokens = torch.stack([block(i, tokens[f], c) for f in range(frames)])
            else:
                tokens = tokens + w["temp_embed"][0][:, None] * (i == 1)
                tokens = torch.stack([block(i, tokens[:, n], c) for n in range(side * side)], dim=1)
        shift, scale = linear("final_layer.adaLN_modulation.1", silu(c)).chunk(2, -1)
        tokens = linear("final_layer.linear", norm(tokens) * (1 + scale) + shift)
        for f in range(frames):
            for n in range(side * side):
                h, v = divmod(n, side)
                pixels = tokens[f, n].reshape(patch, patch, 2 * C).permute(2, 0, 1)
                out[b, f, :, h * patch : (h + 1) * patch, v * patch : (v + 1) * patch] = pixels
    return out


@pytest.mark.parametrize("fused", [True, False])
def test_dit_video_computes_lattes_function_of_its_state_dict(fused):
    model = randomised("DiT-N/4-video", depth=4)
    for block in model.blocks:
        block.attn.fused_attn = fused
    x, t, y = inputs()
    with torch.no_grad():
        expected = plain_latte(model.state_dict(), x, t, y, patch=4, heads=2, depth=4)
        difference = (model(x, t, y) - expected).abs().max()
    assert expected.std() > 0.1
    assert difference < 1e-5


def test_frame_positions_are_sines_then_cosines_of_the_frame():
    table = create_model("DiT-N/8-video", 64).temp_embed[0].double()
    frame, i = 11, 5
    angle = torch.tensor(frame * 10000.0 ** (-i / 32))
    assert table.shape == (16, 64)
    assert torch.allclose(table[frame, [i, 32 + i]], torch.stack([angle.sin(), angle.cos()]).double(), atol=1e-6)


# ------------------------------------------------------------------------------------------- made of the image's blocks


@pytest.mark.parametrize("name", FAMILIES)
def test_a_clip_goes_through_the_image_models_blocks_frame_by_frame_and_position_by_position(name):
    images, clips = randomised(name), create_model(f"{name}-video", SIDE, **SMALL).eval()
    load_weights(clips, images.state_dict(), from_images=True)
    x, t, y = inputs()
    with torch.no_grad():
        c = images.t_embedder(t) + images.y_embedder(y)
        frames = [images.x_embedder(x[:, f]) + images.pos_embed for f in range(T)]
        for i, block in enumerate(images.blocks):
            if i % 2 == 0:
                frames = [block(frame, c) for frame in frames]
            else:
                table = clips.temp_embed[0] if i == 1 else torch.zeros(T, 64)
                positions = [torch.stack(p, 1) + table for p in zip(*(f.unbind(1) for f in frames), strict=True)]
                frames = list(torch.stack([block(p, c) for p in positions], dim=2).unbind(1))
        expected = torch.stack([images.unpatchify(images.final_layer(frame, c)) for frame in frames], dim=1)
        assert torch.allclose(clips(x, t, y), expected, atol=1e-5)


def test_images_weights_load_into_video_where_that_is_requested_and_lack_nothing_but_frame_positions():
    images, clips = randomised("DiM-N/4"), create_model("DiM-N/4-video", SIDE, **SMALL)
    table = clips.temp_embed.clone()
    with pytest.raises(ValueError, match=r"1 missing: temp_embed$"):
        load_weights(clips, images.state_dict())
    load_weights(clips, images.state_dict(), from_images=True)
    assert torch.equal(clips.temp_embed, table)
    assert all(torch.equal(v, clips.state_dict()[k]) for k, v in images.state_dict().items())
    with pytest.raises(ValueError, match=r"missing: blocks\.0\.temporal"):
        load_weights(create_model("DiM-N/4-video-both", SIDE, **SMALL), images.state_dict(), from_images=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_both_mixes_over_space_then_over_time_under_the_same_modulation(name):
    block = randomised(f"{name}-video-both").blocks[0]
    x, c = torch.randn(2, T, 16, 64), torch.randn(2, 1, 64)
    shift, scale, gate, shift2, scale2, gate2 = block.adaLN_modulation(c)[:, :, None].chunk(6, -1)

    def modulated(v, shift, scale):
        return F.layer_norm(v, (64,), eps=1e-6) * (1 + scale) + shift

    with torch.no_grad():
        h = modulated(x, shift, scale)
        expected = x + gate * torch.stack([block.mix(h[:, f]) for f in range(T)], dim=1)
        h = modulated(expected, shift, scale)
        expected = expected + gate * torch.stack([block.temporal(h[:, :, n]) for n in range(16)], dim=2)
        expected = expected + gate2 * block.mlp(modulated(expected, shift2, scale2))
        assert torch.allclose(block(x, c), expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------- what mixes with what


def reach(block, frame: int, position: int):
    """Which (frame, position) of a block's output a token at (frame, position) of its input moves."""
    x, c = torch.randn(1, T, 16, 64), torch.randn(1, 1, 64)
    moved = x.clone()
    moved[:, frame, position] = torch.randn(64)
    with torch.no_grad():
        return ((block(x, c) - block(moved, c))[0] != 0).any(-1)  # (T, L)


@pytest.mark.parametrize("name", FAMILIES)
def test_even_blocks_mix_one_frame_and_odd_blocks_one_position(name):
    space, time = randomised(f"{name}-video").blocks[:2]
    of_frame, of_position = torch.zeros(T, 16, dtype=torch.bool), torch.zeros(T, 16, dtype=torch.bool)
    of_frame[2], of_position[:, 7] = True, True
    assert torch.equal(reach(space, 2, 7), of_frame)
    assert torch.equal(reach(time, 2, 7), of_position)


@pytest.mark.parametrize("arrangement", ["both", "flat"])
@pytest.mark.parametrize("name", FAMILIES)
def test_one_block_of_both_or_flat_mixes_earlier_and_later_frames_at_other_positions(name, arrangement):
    reached = reach(randomised(f"{name}-video-{arrangement}").blocks[0], 2, 7)
    assert (reached[[1, 3]].sum(1) > 1).all()  # a scan forgets: in one long sequence not everything is near


@pytest.mark.parametrize("name", ARRANGED)
def test_the_order_of_the_frames_matters(name):
    model, (x, t, y) = randomised(name), inputs()
    with torch.no_grad():
        assert not torch.allclose(model(x.flip(1), t, y), model(x, t, y).flip(1), atol=1e-3)


@pytest.mark.parametrize("name", ARRANGED)
def test_the_condition_is_evaluated_once_a_sample(name):
    model, rows = randomised(name), []
    for block in [*model.blocks, model.final_layer]:
        block.adaLN_modulation.register_forward_hook(lambda module, args, out: rows.append(out[..., 0].numel()))
    with torch.no_grad():
        model(*inputs(batch=3))
    assert rows == [3] * (len(model.blocks) + 1)


# --------------------------------------------------------------------------------------------------------- joint images


@pytest.mark.parametrize("name", ARRANGED)
def test_joint_images_leave_the_clip_as_it_is_and_know_nothing_of_one_another(name):
    model, (x, t, y) = randomised(name), inputs(joint=3)
    with torch.no_grad():
        out = model(x, t, y)
        alone = model(x[:, :T], t, y[:, 0])
        order = [2, 0, 1]
        permuted = model(torch.cat([x[:, :T], x[:, T:][:, order]], 1), t, torch.cat([y[:, :1], y[:, 1:][:, order]], 1))
        one = model(torch.cat([x[:, :T], x[:, T + 1 : T + 2]], 1), t, y[:, [0, 2]])
    assert torch.allclose(out[:, :T], alone, atol=1e-6)
    assert torch.allclose(permuted[:, T:], out[:, T:][:, order], atol=1e-6)
    assert torch.allclose(permuted[:, :T], alone, atol=1e-6)
    assert torch.allclose(one[:, T], out[:, T + 1], atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_joint_image_is_denoised_by_the_blocks_over_space_under_its_own_label(name):
    clips = randomised(f"{name}-video")
    images = randomised(name, depth=(clips.spec.depth + 1) // 2)
    state = {k: v for k, v in clips.state_dict().items() if not k.startswith(("blocks.", "temp_embed"))}
    for i in range(len(images.blocks)):
        state |= {f"blocks.{i}.{k}": v for k, v in clips.blocks[2 * i].state_dict().items()}
    load_weights(images, state)
    x, t, y = inputs(joint=2)
    with torch.no_grad():
        out = clips(x, t, y)
        for j in (0, 1):
            assert torch.allclose(out[:, T + j], images(x[:, T + j], t, y[:, 1 + j]), atol=1e-5)


@pytest.mark.parametrize("name", ARRANGED)
def test_temporal_mixing_gets_no_gradient_from_joint_images(name):
    model, (x, t, y) = randomised(name), inputs(joint=2)
    x.requires_grad_()
    model(x, t, y)[:, T:].square().sum().backward()
    assert not x.grad[:, :T].any()
    for i, block in enumerate(model.blocks):
        over_time = block.temporal if name.endswith("both") else block
        untouched = not any(p.grad.any() for p in over_time.parameters())
        assert untouched == (name.endswith("both") or (name.endswith("video") and i % 2 == 1))


def test_labels_drop_one_by_one():
    model, (x, t, y) = randomised("DiT-N/4-video"), inputs(joint=2)
    drop = torch.tensor([[True, False, False], [False, False, True]])
    with torch.no_grad():
        assert torch.equal(model(x, t, y, drop), model(x, t, y.masked_fill(drop, 10)))
        of_clip = model(x[:, :T], t, y[:, 0], drop[:, 0])
        assert torch.equal(of_clip, model(x[:, :T], t, y[:, 0].masked_fill(drop[:, 0], 10)))


# ------------------------------------------------------------------------------------------------ guidance and training


def test_guidance_is_lattes_all_channels_by_default_and_never_the_variance():
    model = randomised("DiT-N/4-video", channels=4)
    x, t, y = torch.randn(1, T, 4, SIDE, SIDE), torch.tensor([300]), torch.tensor([4])
    null = torch.tensor([10])
    doubled = (torch.cat([x, torch.zeros_like(x)]), t.repeat(2), torch.cat([y, null]))
    with torch.no_grad():
        cond, uncond = model(x, t, y), model(x, t, null)
        out, three = (model.forward_with_cfg(*doubled, 7.0, channels) for channels in (None, 3))
    guided = uncond + 7.0 * (cond - uncond)
    assert torch.allclose(out[:1, :, :4], guided[:, :, :4], atol=1e-4)
    assert torch.allclose(out[:1, :, 4:], cond[:, :, 4:], atol=1e-4)
    assert torch.allclose(three[:1, :, :3], guided[:, :, :3], atol=1e-4)
    assert torch.allclose(three[:1, :, 3:], cond[:, :, 3:], atol=1e-4)


@pytest.mark.parametrize("name", ARRANGED)
def test_a_fresh_model_gives_zeros_and_keeps_the_state_space_of_every_mixer(name):
    model = create_model(name, SIDE, **SMALL)
    with torch.no_grad():
        assert not model(*inputs(joint=1)).any()
    step_sizes = [p for key, p in model.named_parameters() if "dt_proj" in key and key.endswith("bias")]
    mixers = 0 if name.startswith("DiT") else 2 * len(model.blocks) * (2 if name.endswith("both") else 1)
    assert len(step_sizes) == mixers
    assert all(1e-3 * 0.99 <= F.softplus(bias).min() <= F.softplus(bias).max() <= 0.1 * 1.01 for bias in step_sizes)


@pytest.mark.parametrize("name", ARRANGED)
def test_checkpointing_changes_no_gradient_and_gradients_reach_every_parameter(name):
    model, (x, t, y) = randomised(name).train(), inputs(joint=2)
    keep, grads = torch.zeros_like(y, dtype=torch.bool), []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        model(x, t, y, keep).square().mean().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(a.abs().sum() > 0 for a in grads[0])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))
