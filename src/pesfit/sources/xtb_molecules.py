"""The molecules of the set that is built on the machine itself: small, diverse, and cheap to label.

The order matters: whoever takes the first so many should meet as many kinds of bonds as possible. The first eight hold all nine
elements, both signs of charge, an amide, a heteroaromatic and an aromatic ring; the next ones add the remaining common functional
groups, and what is large or a variation comes late. Ethanol is left to the trajectory.

In the gas phase a proton goes where it likes best, so that there is no ammonium next to a carboxylate with a hydrogen to give: the
zwitterion is a betaine.
"""

from __future__ import annotations

from typing import NamedTuple


class NamedMolecule(NamedTuple):
    """A molecule of the built-in list.

    Attributes:
        name: unique, in small letters; part of the `id` of the rows.
        smiles: isomeric, hydrogens implicit, RDKit's canonical form.
    """

    name: str
    smiles: str


MOLECULES: tuple[NamedMolecule, ...] = (
    NamedMolecule("acetamide", "CC(N)=O"),
    NamedMolecule("1-chloro-2-fluoroethane", "FCCCl"),
    NamedMolecule("propanoate", "CCC(=O)[O-]"),
    NamedMolecule("dimethyl-sulfoxide", "CS(C)=O"),
    NamedMolecule("propylammonium", "CCC[NH3+]"),
    NamedMolecule("dimethyl-phosphate", "COP(=O)([O-])OC"),
    NamedMolecule("4-methylimidazole", "Cc1c[nH]cn1"),
    NamedMolecule("bromobenzene", "Brc1ccccc1"),
    NamedMolecule("methyl-acetate", "COC(C)=O"),
    NamedMolecule("3-chloroaniline", "Nc1cccc(Cl)c1"),
    NamedMolecule("trans-pent-2-ene", "C/C=C/CC"),
    NamedMolecule("2-methylsulfanylethanethiol", "CSCCS"),
    NamedMolecule("l-lactic-acid", "C[C@H](O)C(=O)O"),
    NamedMolecule("propanenitrile", "CCC#N"),
    NamedMolecule("nitroethane", "CC[N+](=O)[O-]"),
    NamedMolecule("methylguanidinium", "CNC(N)=[NH2+]"),
    NamedMolecule("2-methoxypyridine", "COc1ccccn1"),
    NamedMolecule("1,2-dimethoxyethane", "COCCOC"),
    NamedMolecule("n-methylmethanesulfonamide", "CNS(C)(=O)=O"),
    NamedMolecule("alanine-dipeptide", "CNC(=O)[C@H](C)NC(C)=O"),
    NamedMolecule("but-3-yn-1-ol", "C#CCCO"),
    NamedMolecule("2-methylthiophene", "Cc1cccs1"),
    NamedMolecule("furfural", "O=Cc1ccco1"),
    NamedMolecule("2-dimethylaminoethanol", "CN(C)CCO"),
    NamedMolecule("1,3-dimethylurea", "CNC(=O)NC"),
    NamedMolecule("trimethyl-phosphate", "COP(=O)(OC)OC"),
    NamedMolecule("paracetamol", "CC(=O)Nc1ccc(O)cc1"),
    NamedMolecule("methyl-n-methylcarbamate", "CNC(=O)OC"),
    NamedMolecule("dimethyl-disulfide", "CSSC"),
    NamedMolecule("morpholine", "C1COCCN1"),
    NamedMolecule("2,2,2-trifluoroethanol", "OCC(F)(F)F"),
    NamedMolecule("cyclopropyl-methyl-ketone", "CC(=O)C1CC1"),
    NamedMolecule("betaine", "C[N+](C)(C)CC(=O)[O-]"),
    NamedMolecule("2-phenoxyethylammonium", "[NH3+]CCOc1ccccc1"),
    NamedMolecule("uracil", "O=c1cc[nH]c(=O)[nH]1"),
    NamedMolecule("acetamidinium", "CC(N)=[NH2+]"),
    NamedMolecule("ethyl-methyl-sulfone", "CCS(C)(=O)=O"),
    NamedMolecule("methanesulfonate", "CS(=O)(=O)[O-]"),
    NamedMolecule("butane", "CCCC"),
    NamedMolecule("2-phenylpyridine", "c1ccc(-c2ccccn2)cc1"),
)

TRAJECTORY_MOLECULE = NamedMolecule("ethanol", "CCO")
"""The molecule of the one long trajectory."""
