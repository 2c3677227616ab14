"""Replays domain adaptation: prototypes, conditioning, alignment, variance, baselines.

All is computed twice, in float64 and in float32.
"""

import re
from collections.abc import Callable, Iterator

import torch

from fixture_adapters.core import Adapter, Args, Comparison, Fixture, Tensors, compare
from foveal.adaptation import ConditionalDomainLoss, PrototypeBank
from foveal.adaptation import functional as F
from foveal.adaptation.domain_loss import tell_domains
from foveal.models.domain_discriminator import DomainDiscriminator

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}

Replay = Callable[[Tensors, Args], Tensors]


def _replayed(replay: Replay) -> Adapter:
    """Return an adapter that compares every tensor of a file that is no input."""

    def adapter(fixture: Fixture) -> Iterator[Comparison]:
        given = {
            name: fixture.take(name)
            for name in fixture.tensors
            if name.startswith(("input/", "state/"))
        }
        stored = {name: fixture.take(name) for name in fixture.tensors if name not in given}
        for dtype, tolerance in TOLERANCES.items():
            own = {
                name: value.to(dtype) if value.is_floating_point() else value
                for name, value in given.items()
            }
            ours = replay(own, fixture.args)
            label = str(dtype).removeprefix("torch.")
            for name, value in stored.items():
                found = ours.get(_usual_name(name))
                if found is not None:
                    found = found.detach().to(value.dtype)
                    if found.numel() == value.numel() == 1:  # a number may be [] or [1]
                        found = found.reshape(value.shape)
                yield compare(f"{name} ({label})", found, value, tolerance)

    return adapter


def _usual_name(name: str) -> str:
    """Return the name that the replays use for what files name in several ways."""
    if name.startswith("grad") and "entropy" in name:  # what the entropy weights give the logits
        return "grad/logits"
    return re.sub(r"^output/(entropy_)?weights?$", "output/entropy_weight", name)


def _joined(given: Tensors, name: str) -> torch.Tensor:
    return torch.cat([given[f"input/{name}_source"], given[f"input/{name}_target"]])


def _prototypes(given: Tensors, args: Args) -> Tensors:
    f_s, f_t = given["input/features_source"], given["input/features_target"]
    labels, probs = given["input/labels_source"], given["input/logits_target"].softmax(1)
    ignore, classes = args["ignore_index"], probs.shape[1]

    def means(features: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.class_means(features, weights, classes, ignore)

    hot = torch.stack([labels == k for k in range(classes)], 1).to(probs)
    guess = probs.argmax(1).where(probs.amax(1) >= args["confidence"], ignore)
    both, labels_of_both = torch.cat([f_s, f_t]), torch.cat([labels, guess])
    found = {
        ("hard_source", "count"): means(f_s, labels),
        ("soft_target", "weight"): means(f_t, probs),
        ("source_hard_target_soft", "weight"): means(both, torch.cat([hot, probs])),
        ("source_target_confident_hard", "count"): means(both, labels_of_both),
    }
    hard = found["hard_source", "count"][0]
    outputs = {
        "output/rep_target": F.prototypical_representation(
            given["input/logits_target"], hard, is_logits=True
        )
    }
    for (name, weight), (mean, total) in found.items():
        outputs |= {f"output/{name}": mean, f"output/{name}_{weight}": total}
    return outputs


def _ema(given: Tensors, args: Args) -> Tensors:
    initial = given["input/initial"]
    banks = {
        name: PrototypeBank(*initial.shape, args["momentum"], start).to(initial.dtype)
        for name, start in (("official", "random"), ("first_seen", "first_seen"))
    }
    banks["official"].prototypes.copy_(initial)
    steps: dict[str, list[torch.Tensor]] = {name: [] for name in (*banks, "initialized")}
    for step in range(args["steps"]):
        for name, bank in banks.items():
            bank.update(given[f"input/features_{step}"], given[f"input/labels_{step}"])
            steps[name].append(bank.prototypes.clone())
        steps["initialized"].append(banks["first_seen"].initialized.clone())
    return {f"output/{name}": torch.stack(values) for name, values in steps.items()}


def _fill(discriminator: DomainDiscriminator, given: Tensors) -> None:
    prefix = "state/disc."
    state = {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}
    discriminator.to(next(iter(state.values())).dtype).load_state_dict(state)


def _coefficient(args: Args) -> float:
    return F.grl_coefficient(args["grl_step"], args.get("grl_max_steps", 10_000))


def _check_source_is_one(args: Args) -> None:
    if args.get("source_label", 1) != 1:
        raise ValueError("source_label must be 1: foveal's discriminators say 1 for the source")


def _adversarial_outputs(
    discriminator: DomainDiscriminator, loss: torch.Tensor, leaves: Tensors, args: Args
) -> Tensors:
    """Return the loss, the coefficient and all gradients."""
    loss.backward()
    gradients = {f"grad/disc.{k}": p.grad for k, p in discriminator.named_parameters()}
    for name, leaf in leaves.items():
        if leaf.grad is not None:
            gradients[f"grad/{name}"] = leaf.grad
    coeff = torch.tensor(_coefficient(args), dtype=torch.float64)
    return {"output/loss": loss, "output/grl_coeff": coeff, **gradients}


def _conditional(given: Tensors, args: Args) -> Tensors:
    """Return what NOUN and PRONOUN compute, with entropy weights or without."""
    _check_source_is_one(args)
    f, z = _joined(given, "features"), _joined(given, "logits")
    n_source = len(given["input/features_source"])
    hidden = len(given["state/disc.0.bias"])
    module = ConditionalDomainLoss(
        f.shape[1],
        z.shape[1],
        args["kind"],
        entropy=args.get("entropy_conditioning", False),
        normalize=args.get("normalize", "domain"),
        factor=args["norm_factor"],
        hidden=hidden,
    )
    _fill(module.discriminator, given)
    leaves = {"features": f.requires_grad_(), "logits": z.requires_grad_()}
    parts = (f[:n_source], z[:n_source], f[n_source:], z[n_source:])
    found = module.outcome(*parts, _coefficient(args), given.get("input/prototypes"))
    probs = z.detach().softmax(1)
    return {
        "output/condition": found.condition,
        "output/scale": found.scale,
        "output/disc_input": found.inputs,
        "output/disc_logits": found.logits,
        "output/entropy": F.entropy(probs),
        "output/entropy_weight": F.entropy_weights(probs, n_source, module.normalize),
        **_adversarial_outputs(module.discriminator, found.loss, leaves, args),
    }


def _align_representation(given: Tensors, args: Args) -> Tensors:
    _check_source_is_one(args)
    f, z = _joined(given, "features"), _joined(given, "logits").requires_grad_()
    representation = F.prototypical_representation(z, given["input/prototypes"], is_logits=True)
    condition, scale = F.norm_matched(f, representation, args["norm_factor"])
    inputs = torch.cat([representation, condition], 1)
    discriminator = DomainDiscriminator(inputs.shape[1], len(given["state/disc.0.bias"]))
    _fill(discriminator, given)
    n_source = len(given["input/features_source"])
    told = tell_domains(discriminator, inputs, n_source, _coefficient(args))
    return {
        "output/representation": representation,
        "output/condition": f,
        "output/scale": scale,
        "output/disc_input": inputs,
        "output/disc_logits": told.logits,
        **_adversarial_outputs(discriminator, told.loss, {"logits": z}, args),
    }


def _variance(given: Tensors, args: Args) -> Tensors:
    found = {}
    for mode in ("sq", "norm", "mse", "cos"):
        f = given["input/features_target"].clone().requires_grad_()
        z = given["input/logits_target"].clone().requires_grad_()
        r = F.prototypical_representation(z, given["input/prototypes"], is_logits=True)
        reference = given["input/features_source"] if mode == "norm" else None
        loss = F.intra_class_variance(f, r, mode, reference)
        loss.backward()
        found |= {
            "output/representation": r,
            f"output/loss_{mode}": loss,
            f"grad_{mode}/features_target": f.grad,
            f"grad_{mode}/logits_target": z.grad,
        }
    return found


def _baselines(given: Tensors, args: Args) -> Tensors:
    f, probs = given["input/features"], given["input/logits"].softmax(1)
    z_t, n_source = given["input/logits_target"], int(given["input/n_source"])
    steps = given["input/steps"].double()
    start, slope, power = map(
        float, re.fullmatch(r"(\S+)\*\(1\+(\S+)\*i\)\*\*(\S+)", args["lr"]).groups()
    )
    end = args.get("max_steps", 10_000)
    return {
        "output/multilinear": F.multilinear_map(f, probs),
        "output/randomized_multilinear": F.randomized_multilinear_map(
            f, probs, given["input/random_feature"], given["input/random_class"]
        ),
        "output/entropy": F.entropy(probs),
        "output/entropy_weight_per_domain": F.entropy_weights(probs, n_source, "domain"),
        "output/entropy_weight_joint": F.entropy_weights(probs, n_source, "joint"),
        "output/bnm": F.bnm_loss(z_t.softmax(1)),
        "output/fbnm": F.bnm_loss(z_t.softmax(1), fast=True),
        "output/mcc": F.mcc_loss(z_t, args["mcc_temperature"]),
        "output/mcd_discrepancy": F.mcd_discrepancy(
            given["input/mcd_prob1"], given["input/mcd_prob2"]
        ),
        "output/grl_coeff": torch.tensor(
            [F.grl_coefficient(step, end) for step in steps.tolist()], dtype=torch.float64
        ),
        # The schedule is the trainer's; here it is the formula of the file itself.
        "output/lr_inv": start * (1 + slope * steps) ** power,
    }


def _dense(given: Tensors, args: Args) -> Tensors:
    f, z = given["input/features"], given["input/logits"]
    means, count = F.class_means(f, given["input/labels"], z.shape[1], args["ignore_index"])
    factor = args.get("norm_factor", 1.0)
    module = ConditionalDomainLoss(
        f.shape[1], z.shape[1], "pronoun", factor=factor, hidden=2, dense=True
    )
    found = module.to(f.dtype).outcome(f[:1], z[:1], f[1:], z[1:], 1.0, means)
    return {
        "output/prototypes": means,
        "output/count": count,
        "output/representation": F.prototypical_representation(z, means, is_logits=True),
        "output/scale": found.scale,
        "output/disc_input": found.inputs,
    }


ADAPTERS: dict[str, Adapter] = {
    name: _replayed(replay)
    for name, replay in {
        "prototypes": _prototypes,
        "ema": _ema,
        "noun": _conditional,
        "pronoun": _conditional,
        "pal_proto": _align_representation,
        "icv": _variance,
        "baselines": _baselines,
        "dense": _dense,
    }.items()
}
