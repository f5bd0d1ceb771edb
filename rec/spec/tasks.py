"""The task graph: which task is the parent of which, and which candidates count for which loss and metric.

    exposure -> click -> conversion          [tasks.conversion] given = "click"

    log P(conversion) = log P(click) + log P(conversion | click)          (the chain: rec/losses/task_losses.py)

The same declaration masks the loss and the metric: `conversion|click` is evaluated on clicked candidates,
`conversion` over all.
Labels of events are int8: 1 it happened, 0 it did not, -1 not observed; those of regression tasks float32: 0 or more,
NaN not observed. A regression task is no task's parent.
Ma et al., Entire Space Multi-Task Model (ESMM), SIGIR 2018, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rec.spec.spec import Event, Spec, Task

UNOBSERVED = -1
_WEIGHT = "@weight."  # no task and no feature is called so


def in_order(tasks: Mapping[str, Task]) -> list[str]:
    """Task names in topological order, otherwise as declared; the graph is validated (rec/spec/validate.py).

    >>> in_order({"buy": Task(label="b", given="click"), "click": Task(label="c")})
    ['click', 'buy']
    """
    order: dict[str, None] = {}
    for name in tasks:
        line = [name]
        while (parent := tasks[line[-1]].given) is not None and parent not in order:
            line.append(parent)
        order |= dict.fromkeys(reversed(line))
    return list(order)


def given(tasks: Mapping[str, Task]) -> dict[str, str | None]:
    """Each task and its parent, parents first."""
    return {name: tasks[name].given for name in in_order(tasks)}


def events(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks that predict whether something happens, parents first."""
    return {name: tasks[name] for name in in_order(tasks) if tasks[name].predict == "event"}


def behaviours(spec: Spec) -> dict[str, Task | Event]:
    """What counts, rates and histories may use: tasks that predict events, and `[events]`."""
    return {**events(spec.tasks), **spec.events}


def regression_tasks(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks that predict a number.

    >>> list(regression_tasks({"click": Task(label="c"), "watch": Task(label="w", given="click", predict="log")}))
    ['watch']
    """
    return {name: tasks[name] for name in in_order(tasks) if tasks[name].predict != "event"}


def conditional(name: str, parent: str) -> str:
    """The name of P(name | parent) in outputs, metrics and reports."""
    return f"{name}|{parent}"


def outputs(tasks: Mapping[str, Task]) -> list[str]:
    """The outputs of a model of these tasks: each task, and each child given its parent.

    >>> outputs({"click": Task(label="c"), "buy": Task(label="b", given="click")})
    ['click', 'buy', 'buy|click']
    """
    return outputs_of(given(tasks))


def outputs_of(parents: Mapping[str, str | None]) -> list[str]:
    """As `outputs`, from a mapping of tasks to parents, in its order."""
    names = []
    for name, parent in parents.items():
        names += [name] if parent is None else [name, conditional(name, parent)]
    return names


def task_of_output(tasks: Mapping[str, Task]) -> dict[str, str]:
    """The task behind each output, in the order of `outputs`.

    >>> task_of_output({"click": Task(label="c"), "buy": Task(label="b", given="click")})
    {'click': 'click', 'buy': 'buy', 'buy|click': 'buy'}
    """
    tasks_of = {}
    for name, parent in given(tasks).items():
        tasks_of |= dict.fromkeys(outputs_of({name: parent}), name)
    return tasks_of


def observed(label_N: Any) -> Any:
    """Where a label is observed [N] bool; numpy or torch. Labels of every kind of task are 0 or more."""
    return label_N >= 0


def happened(label_N: Any) -> Any:
    """Where the event is known to have happened [N] bool; numpy or torch."""
    return label_N == 1


def weight_column(name: str) -> str:
    """The column of a task's sample weights beside the labels, in session tables and batches.

    >>> weight_column("click")
    '@weight.click'
    """
    return f"{_WEIGHT}{name}"


def weighted(tasks: Mapping[str, Task]) -> list[str]:
    """The tasks with sample weights, in order."""
    return [name for name in in_order(tasks) if tasks[name].sample_weight is not None]


def sample_weights(name: str, labels: Mapping[str, Any]) -> Any:
    """The sample weights of a task's candidates [N], 0 or more, which come with the labels; None: it has none."""
    return labels.get(weight_column(name))


def metric_rows(tasks: Mapping[str, Task], labels: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """For each output: the task whose label it is compared with, and the candidates it is evaluated on [N] bool.

    `conversion` over every observed candidate, `conversion|click` over the clicked ones among them.
    """
    rows = {}
    for name, parent in given(tasks).items():
        rows[name] = (name, observed(labels[name]))
        if parent is not None:
            rows[conditional(name, parent)] = (name, observed(labels[name]) & happened(labels[parent]))
    return rows


def loss_rows(name: str, task: Task, labels: Mapping[str, Any]) -> Any:
    """Candidates that enter the loss of a task [N] bool: all observed, or those whose parent happened.

    A regression task is trained where its parent happened, whatever its `space`.
    """
    rows = observed(labels[name])
    if task.given is not None and loss_output(name, task) != name:
        rows = rows & happened(labels[task.given])
    return rows


def loss_output(name: str, task: Task) -> str:
    """The output whose candidates are those of the task's loss (`loss_rows`).

    >>> loss_output("buy", Task(label="b", given="click", space="parent"))
    'buy|click'
    """
    if task.given is not None and (task.space == "parent" or task.predict != "event"):
        return conditional(name, task.given)
    return name


def own_output(name: str, task: Task) -> str:
    """The output of a task where its parent happened; of a task without a parent the task itself.

    >>> own_output("buy", Task(label="b", given="click")), own_output("click", Task(label="c"))
    ('buy|click', 'click')
    """
    return name if task.given is None else conditional(name, task.given)


def along_graph(values: Mapping[str, Any], parents: Mapping[str, str | None]) -> dict[str, Any]:
    """The outputs, in order, from what each task is where its parent happened: {task: probability or number [N]}.

    >>> along_graph({"click": 0.5, "buy": 0.25}, {"click": None, "buy": "click"})
    {'click': 0.5, 'buy': 0.125, 'buy|click': 0.25}
    """
    out: dict[str, Any] = {}
    for name, parent in parents.items():
        if parent is None:
            out[name] = values[name]
        else:
            out |= {name: out[parent] * values[name], conditional(name, parent): values[name]}
    return out


def values(spec: Spec) -> dict[str, float]:
    """Worth of one event, or of one unit, of each task: the fused score is `sum value * output`."""
    return {name: spec.tasks[name].value for name in in_order(spec.tasks)}
