"""What attacks made at one lambda do to the network at another."""

from floats_edge.artifacts.transfer import Transfer
from floats_edge.report.tables import Content, Table, make_table, share

_ROWS = (
    "Each row is an attacker who may change the same images, each column the lambda that is served: robust % against "
    "this attacker, in brackets the Wilson 95 % interval. The sum: an attacker who knows the lambdas but not which one "
    "is served. All of them: images that withstand every attacker."
)


def transfer_tables(content: Content) -> list[Table]:
    """The matrix of every evaluation that has one."""
    return [_table(label, record.transfer) for label, record in content.distinct if record.transfer is not None]


def _table(label: str, transfer: Transfer) -> Table:
    attackers = (
        *((f"λ = {lam:g}", row) for lam, row in zip(transfer.lambdas, transfer.by_lambda, strict=True)),
        ("the sum over λ", transfer.by_sum),
        ("all of them", transfer.by_all),
    )
    rows = ((name, *(f"≤ {share(transfer.share(count))}" for count in row)) for name, row in attackers)
    columns = ("attacked at", *(f"served at λ = {lam:g}" for lam in transfer.lambdas))
    clean, robust = transfer.drawn
    drawn = (
        f"If every inference drew one of these lambdas by chance: {clean:.1f} % clean, ≤ {robust:.1f} % robust against "
        "the attacker who knows them."
    )
    notes = (_ROWS, drawn, *transfer_remarks(transfer))
    return make_table(f"Attacks across lambda · {label}", columns, rows, columns[1:], notes=notes)


def transfer_remarks(transfer: Transfer) -> list[str]:
    """One line for each lambda at which another attack does better than the one at this lambda."""
    return [
        f"Masked gradients at λ = {served:g}: an attack "
        + ("on the sum over λ" if attacked is None else f"made at λ = {attacked:g}")
        + " fools more images than the one made there. Its robust accuracy is overstated."
        for attacked, served in transfer.masked
    ]
